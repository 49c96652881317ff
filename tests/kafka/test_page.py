"""The status page in a real browser, fed with hostile input by a real run."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.cluster import Cluster
from tests.support.endpoint import STOP_S, TOKEN, get, start
from tests.support.missing import BROWSER, require
from tests.support.ports import free_port

WAIT_S = 30
DESK, PHONE = (1280, 800), (390, 844)
HOSTILE = "<img src=x onerror=window.hacked=1>\"'&amp;</script><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """Start a browser; without one fail in CI, and skip with a word elsewhere."""
    require(BROWSER)
    programs = [shutil.which(program) for program in BROWSER.programs]
    options = ChromeOptions()
    options.binary_location = str(programs[0])
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, Service(str(programs[1])))
    yield driver
    driver.quit()


def show(browser: Chrome, size: tuple[int, int], *, dark: bool = False) -> None:
    """Give the page a window of this size, and a person who likes it light or dark."""
    width, height = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def wait(browser: Chrome, script: str) -> Any:
    """Wait until a script returns something true, and return it."""
    return WebDriverWait(browser, WAIT_S).until(lambda b: b.execute_script(f"return {script}"))


def text(browser: Chrome, css: str) -> str:
    """Return the text that a person sees in an element."""
    return browser.find_element(By.CSS_SELECTOR, css).text


def contrast(browser: Chrome, css: str) -> float:
    """Return the contrast of an element's text with what is behind it, as WCAG counts it."""
    found: float = browser.execute_script(
        """
        const light = (colour) => {
          const [r, g, b] = colour.match(/[0-9.]+/g).map((c) => {
            const s = c / 255;
            return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
          });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        let back = document.querySelector(arguments[0]);
        const text = light(getComputedStyle(back)[back.matches("text") ? "fill" : "color"]);
        while (getComputedStyle(back).backgroundColor === "rgba(0, 0, 0, 0)") {
          back = back.parentElement;
        }
        const behind = light(getComputedStyle(back).backgroundColor);
        return (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
        """,
        css,
    )
    return found


def test_page_shows_a_run_and_takes_input_for_text(browser: Chrome, cluster: Cluster) -> None:
    """Token, numbers, charts and tables; hostile ids and dead letters; a phone; light and dark."""
    for n in range(50):
        cluster.send("Start", f"c{n}", f"s{n}")
    cluster.send("Start", "c<b>", HOSTILE.replace('"', '\\"'))
    cluster.send_raw(HOSTILE.encode(), f"c{HOSTILE}")
    cluster.flush()
    flow, port = start(cluster, HEARTWHEEL_HTTP_TOKEN=TOKEN)
    cluster.wait("readiness", lambda: get(port, "/readyz")[0] == 200)
    show(browser, DESK)
    browser.get(f"http://127.0.0.1:{port}/")

    for word in ("wrong", TOKEN):  # the first one is asked for again
        wait(browser, "!document.getElementById('token').hidden")
        assert not browser.find_element(By.ID, "main").is_displayed()
        browser.find_element(By.CSS_SELECTOR, "#token input").send_keys(word)
        browser.find_element(By.CSS_SELECTOR, "#token button").click()
        if word == "wrong":
            wait(browser, "document.getElementById('token-text').textContent.includes('not the')")
    wait(browser, "document.querySelector('#tiles b')?.textContent === '51'")
    wait(browser, "document.querySelectorAll('#charts svg path.line').length >= 5")
    assert text(browser, "#state") == "ready"
    assert not browser.find_element(By.ID, "shards-card").is_displayed()
    assert [row.text.split()[1] for row in rows(browser, "lanes")] == ["live"] * 4
    wait(browser, "document.querySelectorAll('#input td.number').length === 4")
    assert [row.text.split() for row in rows(browser, "platforms")] == [
        ["console", "51", "51", "0", "0"], ["pc", "0", "0", "0", "0"]
    ]  # fmt: skip
    assert [row.text.split()[0] for row in rows(browser, "topics")] == [cluster.console, cluster.pc]
    (letter,) = rows(browser, "letters")
    assert HOSTILE in letter.text
    assert "not json" in letter.text

    browser.find_element(By.ID, "device-id").send_keys("c<b>")
    browser.find_element(By.CSS_SELECTOR, "#device-form button").click()
    wait(browser, "document.querySelector('#device dd')")
    assert HOSTILE in text(browser, "#device")
    browser.find_element(By.CSS_SELECTOR, "nav button").click()
    assert browser.execute_script("return window.hacked ?? null") is None
    assert browser.find_elements(By.CSS_SELECTOR, "main img, main script") == []

    for dark in (False, True):
        for size in (DESK, PHONE):
            show(browser, size, dark=dark)
            seen = browser.execute_script("return [document.body.scrollWidth, innerWidth]")
            assert seen[0] <= seen[1] == size[0]
        for css in ("h1", "#state", "#about", ".tile small", ".key", "th", "td.good", "svg text"):
            assert contrast(browser, css) >= 4.5, (css, dark)

    flow.send_signal(signal.SIGTERM)
    assert flow.wait(timeout=STOP_S) == 0, cluster.errors(flow)
    wait(browser, "document.getElementById('state').textContent.startsWith('no answer for')")
    logged = [line["message"] for line in browser.get_log("browser")]
    expected = (
        "401 (Unauthorized)",
        "ERR_CONNECTION_REFUSED",
        "ERR_EMPTY_RESPONSE",
        "ERR_CONNECTION_RESET",
    )
    assert [line for line in logged if not any(word in line for word in expected)] == []


def test_page_of_a_shard_shows_all_and_names_one_that_is_down(
    browser: Chrome, address: str, tmp_path: Path
) -> None:
    """With its numbers beside the others, on a phone as well."""
    cluster = Cluster(address, tmp_path, f"page-{tmp_path.name[-12:]}", lanes=2)
    ports = [free_port(), free_port()]
    cluster.variables |= {
        "HEARTWHEEL_ROUTE": "partition",
        "HEARTWHEEL_SHARD": "1/2",
        "HEARTWHEEL_HTTP_ADDRESSES": ",".join(f"127.0.0.1:{port}" for port in ports),
        "HEARTWHEEL_HTTP_PORT": str(ports[1]),
    }
    cluster.start()
    cluster.wait("readiness", lambda: get(ports[1], "/readyz")[0] == 200)
    cluster.send_raw(
        b'{"type":"GameStart","device_id":"d","session_id":"s"}', "d", where=(cluster.pc, 1)
    )
    show(browser, DESK)
    browser.get(f"http://127.0.0.1:{ports[1]}/")
    wait(browser, "document.querySelector('#shards tr:nth-child(3)')?.textContent.includes('y11')")
    down, up, total = (row.text for row in rows(browser, "shards"))
    assert down == "0 does not answer - - -"
    assert up.startswith("1 ready 1 1 ")
    assert total.rstrip() == "all 1 1"
    for size in (DESK, PHONE):
        show(browser, size)
        seen = browser.execute_script("return [document.body.scrollWidth, innerWidth]")
        assert seen[0] <= seen[1] == size[0]
    browser.get_log("browser")
    cluster.end()


def rows(browser: Chrome, table: str) -> list[Any]:
    """Return the rows of a table without its head."""
    return browser.find_elements(By.CSS_SELECTOR, f"#{table} tr:has(td)")
