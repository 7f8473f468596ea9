"""The explorable page in a headless browser: a slider is moved, the picture and the figures change."""

import json
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
const told = {};
for (const name in METHODS) {
  get("method").value = name;
  told[name] = ["0.1", "0.5"].map(p => {
    get("p").value = p;
    get("p").dispatchEvent(new Event("input"));
    const cells = Object.fromEntries([...document.querySelectorAll("td")].map(td => [td.id, td.textContent]));
    return { picture: get("mask").toDataURL(), ...cells };
  });
}
const out = document.createElement("pre");
out.id = "told";
out.textContent = JSON.stringify(told);
document.body.append(out);
</script>
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the page shows of each method at p = 0.1 and 0.5, its slider moved by events."""
    if BROWSER is None:
        pytest.skip("no Chromium here")
    folder = tmp_path_factory.mktemp("explore")
    (folder / "page.html").write_text(PAGE.read_text("utf-8").replace("</html>", MOVES + "</html>"), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
    command = [BROWSER, *options, (folder / "page.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    assert found, f"the page's script did not run to its end: {dom[-500:]}"
    return json.loads(found.group(1).replace("&amp;", "&"))


def test_moving_p_changes_the_picture_and_the_figures(told):
    assert len(told) == 10
    for name, (few, half) in told.items():
        assert few["picture"] != half["picture"], name
        assert few["expected"] != half["expected"] or name == "Gaussian dropout", name


@pytest.mark.parametrize("i", [0, 1])
def test_the_figures_are_those_of_theory(told, i):
    p = (0.1, 0.5)[i]
    moments = {
        "Dropout": theory.bernoulli_moments(p),
        "Dropout, original rule": theory.mask_moments(p),
        "Gaussian dropout": theory.gaussian_moments(p),
        "Alpha dropout": theory.alpha_moments(p),
        "Thin": theory.thin_moments(p, 16),
        "DropBlock": theory.drop_block_moments(p),
    }
    for name, (mean, variance) in moments.items():
        row = told[name][i]
        assert (float(row["mean"]), float(row["variance"])) == pytest.approx((mean, variance), abs=5e-5), name
    side = round(16 * p**0.5)
    assert float(told["Cutout"][i]["expected"]) == pytest.approx(
        theory.cutout_share(side, (16, 16)), abs=5e-5
    )
    assert int(told["Thin"][i]["networks"].replace(",", "")) == theory.subnetworks(
        16, theory.survivor_count(16, p)
    )
    assert told["Spatial dropout"][i]["networks"] == "65,536"
    effective = int(told["Spatial dropout"][i]["effective"].replace(",", ""))
    assert effective == round(theory.effective_subnetworks(16, p))
    shown = float(told["DropBlock"][i]["effective"].replace(",", "").replace("·10^", "e"))
    rate = theory.drop_block_rate(p, 5, (16, 16))
    expected = theory.effective_subnetworks(144, rate)
    assert shown == pytest.approx(expected, rel=0.051), "two digits are shown"


def test_without_a_server():
    text = PAGE.read_text("utf-8")
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text), "nothing is loaded from elsewhere"
    assert "fetch(" not in text
