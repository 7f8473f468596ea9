"""The Chinese pages as Sphinx reads them: docs/zh with the code cells and tables of the English pages.

In a page of docs/zh, `% cell` is the next code cell of the English page of the same name. `% table: HEADING`
stands for the tables and pictures below that heading. So code and figures are the same in both languages.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

DOCS = Path(__file__).parents[1]
CELL = re.compile(r"^```\{code-cell\}.*?^```$", re.DOTALL | re.MULTILINE)
TABLE = re.compile(r"^% table: (.+)$", re.MULTILINE)
OUT = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+)([\w/-]+)\.md(#[\w-]+)?\)")
# The end of a line between two Chinese characters, or behind a full-width mark, is no space.
MARK, CHARACTER = "\u3000-\u303f\uff00-\uffef", "\u4e00-\u9fff"
JOIN = re.compile(
    rf"(?<=[{MARK}{CHARACTER}])\n *(?=[{MARK}{CHARACTER}])"
    rf"|(?<=[{MARK}])\n *(?=[A-Za-z(\[“]|\d(?!\d*\. )|`(?!``)|\*(?! ))"
)
THEME = {  # what the theme says in English
    "<span>Next</span>": "<span>下一页</span>",
    "<span>Previous</span>": "<span>上一页</span>",
    "On this page": "本页内容",
    "Back to top": "回到顶部",
    "Skip to content": "跳到正文",
    "Toggle site navigation sidebar": "显示或隐藏导航",
    "Toggle table of contents sidebar": "显示或隐藏目录",
    "Toggle Light / Dark / Auto color theme": "浅色、深色或自动",
}
WORDS = {  # in the tables of results; longer ones first
    "time of a run": "一次运行的时间",
    "time to train": "训练时间",
    "training error %": "训练误差 %",
    "test error %": "测试误差 %",
    "seconds an epoch": "每轮秒数",
    "Gaussian kernel": "高斯核",
    "Gaussian noise": "高斯噪声",
    "weight scaling": "权重缩放",
    "average of": "平均，个数",
    "fixed expected": "固定期望",
    "n fixed": "n 固定",
    "autoencoder": "自编码器",
    "finetuning": "微调",
    "experiment": "实验",
    "bypassed forward": "前向绕过",
    "in the path": "在通路中",
    "max-norm": "最大范数",
    "standard": "标准",
    "logistic": "逻辑单元",
    "not run": "未运行",
    "no drop": "不失活",
    "dropout": "随机失活",
    "DropConnect": "连接失活",
    "prediction": "预测方式",
    "printed": "原文",
    "run at": "运行规模",
    "system": "系统",
    "source": "原文",
    "seeds": "种子数",
    "method": "方法",
    "shows": "内容",
    "ours: ": "我们的：",
    "ours": "我们的",
    "keep ": "保留率 ",
    "thin in 16 groups": "稀疏训练，16 组",
    "thin": "稀疏训练",
}


def written(source: Path, out: Path) -> None:
    """Write every page of docs/zh to ``out``, and the pictures that they show."""
    shutil.rmtree(out, ignore_errors=True)
    for page in source.rglob("*.md"):
        name = page.relative_to(source)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        english = (DOCS / name).read_text(encoding="utf-8")
        text = whole(page.read_text(encoding="utf-8"), english, str(name), len(name.parts) - 1)
        (out / name).write_text(text, encoding="utf-8")
    for pictures in ("images", "results"):
        keep = shutil.ignore_patterns("*.json")
        shutil.copytree(DOCS / pictures, out / pictures, dirs_exist_ok=True, ignore=keep)


def whole(text: str, english: str, name: str, depth: int) -> str:
    """A page with its cells and tables, and with links to English pages as they are on the site."""
    text, cells = JOIN.sub("", text), CELL.findall(english)
    if text.count("\n% cell\n") != len(cells):
        raise ValueError(
            f"zh/{name} must have {len(cells)} lines % cell, got {text.count(chr(10) + '% cell' + chr(10))}"
        )
    for cell in cells:
        text = text.replace("\n% cell\n", f"\n{cell}\n", 1)
    text = TABLE.sub(lambda found: tables(english, found[1]), text)
    up = "../" * depth
    text = re.sub(r"(!\[[^\]]*\]\(|src=\")(?:\.\./)+((?:images|results)/)", rf"\1{up}\2", text)
    return OUT.sub(lambda link: out_of(link, up), text)


def out_of(link: re.Match[str], up: str) -> str:
    """A link to a page that is only there in English; others stay."""
    title, steps, page, place = link[1], link[2], link[3], link[4] or ""
    if len(steps) <= len(up):
        return link[0]
    return f'<a href="{steps}{page}.html{place}">{title}</a>'


def tables(english: str, heading: str) -> str:
    """The tables and pictures below a heading, before what differs from the source."""
    sections = re.split(r"^#+ ", english, flags=re.MULTILINE)
    section = next((part for part in sections if part.startswith(heading + "\n")), None)
    if section is None:
        raise ValueError(f"the English page must have the heading {heading}")
    lines = section.partition("\nWhere `")[0].splitlines()
    kept = [line for line in lines if line.startswith(("|", "![")) or not line]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(kept))
    for word, chinese in WORDS.items():
        text = re.sub(rf"(?<![\w/(#\[`-]){re.escape(word)}(?![\w`(/.\])-])", chinese, text)
    for unit, chinese in {"min": "分钟", "h": "小时", "s": "秒"}.items():
        text = re.sub(rf"(\d) {unit} \|", rf"\1 {chinese} |", text)
    return text
