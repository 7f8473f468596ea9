"""The explorable page in a headless browser: a slider is moved, the picture and the figures change."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from thinned import theory

PAGE = Path(__file__).parents[1] / "docs" / "explore.html"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MOVES = """
<script>
const shown = {};
for (const name in METHODS) {
  get("method").value = name;
  shown[name] = ["0.1", "0.5"].map(p => {
    get("p").value = p;
    get("p").dispatchEvent(new Event("input"));
    const cells = Object.fromEntries([...document.querySelectorAll("td")].map(td => [td.id, td.textContent]));
    return { picture: get("mask").toDataURL(), ...cells };
  });
}
const out = document.createElement("pre");
out.id = "shown-by-method";
out.textContent = JSON.stringify(shown);
document.body.append(out);
</script>
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What the page shows for each method at p = 0.1 and 0.5, after events that move its slider."""
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    folder = tmp_path_factory.mktemp("explore")
    (folder / "page.html").write_text(PAGE.read_text("utf-8").replace("</html>", MOVES + "</html>"), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
    command = [BROWSER, *options, (folder / "page.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r'<pre id="shown-by-method">(.*?)</pre>', dom, re.DOTALL)
    assert found, f"the page's script did not finish: {dom[-500:]}"
    return json.loads(found.group(1).replace("&amp;", "&"))


def test_moving_p_changes_the_picture_and_the_figures(shown):
    assert len(shown) == 10
    for name, (few, half) in shown.items():
        assert few["picture"] != half["picture"], name
        assert few["expected"] != half["expected"] or name == "Gaussian dropout", name


@pytest.mark.parametrize("i", [0, 1])
def test_the_figures_are_those_of_theory(shown, i):
    p = (0.1, 0.5)[i]
    moments = {
        "Dropout": theory.bernoulli_moments(p),
        "Dropout, original rule": theory.mask_moments(p),
        "Gaussian dropout": theory.gaussian_moments(p),
        "Alpha dropout": theory.alpha_moments(p),
        "Thin": theory.thin_moments(p),
        "DropBlock": theory.drop_block_moments(p),
    }
    for name, (mean, variance) in moments.items():
        row = shown[name][i]
        assert (float(row["mean"]), float(row["variance"])) == pytest.approx((mean, variance), abs=5e-5), name
    side = round(16 * p**0.5)
    assert float(shown["Cutout"][i]["expected"]) == pytest.approx(
        theory.cutout_share(side, (16, 16)), abs=5e-5
    )
    k, more = divmod(16 * (1 - p), 1)  # k of 16 survive, or one more
    ways = theory.subnetworks(16, int(k)), theory.subnetworks(16, int(k) + 1) if more else 0
    assert int(shown["Thin"][i]["networks"].replace(",", "")) == sum(ways)
    entropy = sum(f * math.log(w / f) for f, w in zip((1 - more, more), ways, strict=True) if f)
    assert int(shown["Thin"][i]["effective"].replace(",", "")) == round(math.exp(entropy))
    assert shown["Spatial dropout"][i]["networks"] == "65,536"
    effective = int(shown["Spatial dropout"][i]["effective"].replace(",", ""))
    assert effective == round(theory.effective_subnetworks(16, p))
    displayed = shown["DropBlock"][i]["effective"].replace(",", "").replace("·10", "e")
    displayed = float(displayed.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")))
    rate = theory.drop_block_rate(p, 5, (16, 16))
    expected = theory.effective_subnetworks(144, rate)
    assert displayed == pytest.approx(expected, rel=0.051), "the page shows two digits"


def test_without_a_server():
    text = PAGE.read_text("utf-8")
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text), "the page loads nothing"
    assert "fetch(" not in text
