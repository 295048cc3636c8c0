from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from stream_gru.errors import TrainingError
from stream_gru.models import bundle
from stream_gru.models.forecaster import Forecaster
from stream_gru.training import fit, objective, report
from stream_gru.training import recipe as recipes
from stream_gru.training.data import Synthetic
from stream_gru.training.fit import Fitted
from stream_gru.training.prepare import Prepared, prepare
from stream_gru.training.recipe import Recipe
from stream_gru.training.report import facts, norms
from stream_gru.training.report.residuals import Residuals, residuals

pytestmark = pytest.mark.slow

NAME = '<script>alert("ha")</script> & co'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, Prepared, Recipe]:
    """A fit of seconds, with its log."""
    torch.set_num_threads(1)
    small = {"network.hidden": 6, "network.layers": 2, "horizons": [3], "data.length": 80, "data.batch": 4}
    recipe = recipes.load(None, {**small, "plan.steps": 12, "plan.check_every": 2, "plan.chunk": 40})
    source = Synthetic(recipe.data)
    description = bundle.Description(name=NAME, network=recipe.network, horizons=recipe.horizons)
    test = source.draw(12, 80, np.random.default_rng(1))
    fitted = fit.fit(recipe, source, test, description, folder=tmp_path_factory.mktemp("log"), device="cpu")
    return fitted, prepare(test, description), recipe


@pytest.fixture(scope="module")
def page(made: tuple[Fitted, Prepared, Recipe], tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("page") / "new" / "report.html"
    assert report.write(file, *made) == file
    return file.read_text(encoding="utf-8")


class _Seen(HTMLParser):
    """What a browser would load, and the text that it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "data", "srcset"}]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open) and data.strip():
            self.text.append(" ".join(data.split()))


def seen(page: str) -> _Seen:
    parser = _Seen()
    parser.feed(page)
    return parser


def test_the_page_loads_nothing(page: str) -> None:
    assert seen(page).loads == []
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.S))
    assert "url(" not in styles
    assert "@import" not in styles
    assert "Bokeh" in page  # the library is in it


def test_the_page_says_what_was_found_first(page: str) -> None:
    text = seen(page).text
    assert NAME in text  # as text
    assert "<script>alert" not in page
    assert any(line.startswith("On held-back data its forecast of the next reading errs") for line in text)
    order = ["Diagnosis", "What was made", "How it learned", "On held-back data", "Examples from held-back data"]
    assert [line for line in text if line in order] == order


def test_the_page_has_every_chart(page: str) -> None:
    text = seen(page).text
    for title in [
        "Loss",
        "Error on held-back data",
        "Learning rate",
        "Gradient norm",
        "Gradient norm of each part",
        "Weight norm",
        "Weight norm of each part",
        "Speed",
        "Error by step ahead",
        "Error by readings seen",
        "Calibration of the quantiles",
        "Where the values fall",
        "Standardised residuals",
        "Residual against forecast",
        "Autocorrelation of the residuals",
    ]:
        assert title in text
    assert sum(line.startswith("Window ") for line in text) >= 3
    charts = re.findall(r'<div id="[^"]+" data-root-id="[^"]+"', page)
    assert len(charts) == 15 + sum(line.startswith("Window ") for line in text)


def test_the_page_tells_the_fit_and_the_recipe(page: str, made: tuple[Fitted, Prepared, Recipe]) -> None:
    fitted, _, _ = made
    text = seen(page).text
    parameters = sum(weight.numel() for weight in fitted.forecaster.parameters())
    assert f"{parameters:,}" in text
    assert "gru, 6 units, layers 2" in text
    assert "12, stopped as its steps were done" in text
    assert f"{fitted.quality.error[0]:.3f}" in text
    changed = text[text.index("The recipe") : text.index("All settings")]
    assert "plan.check_every" in changed
    assert "plan.clip" not in changed
    assert "plan.clip" in text


def test_without_a_recipe_or_a_log_there_is_still_a_page(made: tuple[Fitted, Prepared, Recipe], tmp_path: Path) -> None:
    fitted, prepared, _ = made
    bare = Fitted(**{**vars(fitted), "log": None})
    text = seen(report.write(tmp_path / "report.html", bare, prepared).read_text(encoding="utf-8")).text
    assert "The network" in text
    assert "Gradient norm of each part" not in text


def test_a_report_that_can_not_be_written_says_so(made: tuple[Fitted, Prepared, Recipe], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="report can't be written to"):
        report.write(tmp_path / "file" / "report.html", *made)


def test_series_that_never_move_or_are_never_known_make_a_page(
    made: tuple[Fitted, Prepared, Recipe], tmp_path: Path
) -> None:
    fitted, prepared, _ = made
    for target in (torch.zeros_like(prepared.target), torch.full_like(prepared.target, float("nan"))):
        report.write(tmp_path / "report.html", fitted, prepared._replace(target=target))


def test_a_report_leaves_the_dice_alone(made: tuple[Fitted, Prepared, Recipe]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    report.diagnosed(made[0])
    assert torch.rand(1) == expected


def test_the_log_of_norms_is_read(made: tuple[Fitted, Prepared, Recipe]) -> None:
    fitted, _, _ = made
    assert fitted.log is not None
    log = norms.read(fitted.log / "norms.csv")
    assert log is not None
    names = [name for name, _ in fitted.forecaster.named_parameters()]
    assert list(log.gradient) == list(log.weight) == names
    assert log.cells() == ["network.parts.0", "network.parts.1"]
    groups = log.groups("gradient")
    assert set(groups) == {"network.parts.0", "network.parts.1", "heads.0"}
    total = sum(norm**2 for norm in log.gradient.values())
    np.testing.assert_allclose(sum(norm**2 for norm in groups.values()), total)
    assert norms.read(fitted.log / "nothing.csv") is None


# Residuals of forecasts that are known


def known(rng: np.random.Generator, *, wide: float = 1.0, scale: float = 1.0) -> Residuals:
    """Forecasts of white noise about a known move, with right intervals if `wide` is 1."""
    length, n = 300, 40
    move = rng.normal(size=(2, length, n))
    target = move + rng.normal(size=(2, length, n))
    reach = np.array([0.0, -1.6449, 1.6449])[:, None, None] * wide
    forecast = (move[:, None] + reach) * scale
    return Residuals(
        (1, 5),
        forecast.astype(np.float32),
        (target * scale).astype(np.float32),
        np.full((length, n), scale, np.float32),
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_standardised_residuals_of_a_right_forecast_are_normal(scale: float) -> None:
    z = known(np.random.default_rng(0), scale=scale).standard()
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 1) < 0.03


def test_quantiles_that_are_right_and_quantiles_that_are_too_narrow() -> None:
    right, narrow = known(np.random.default_rng(0)), known(np.random.default_rng(0), wide=0.5)
    np.testing.assert_allclose(right.below(0), [(0.05, 0.05), (0.5, 0.5), (0.95, 0.95)], atol=0.02)
    (_, low), (_, middle), (_, high) = narrow.below(1)
    assert low > 0.15
    assert abs(middle - 0.5) < 0.02
    assert high < 0.85


def test_a_tie_counts_half() -> None:
    zero = np.zeros((1, 3, 30, 1), np.float32)
    flat = Residuals((1,), zero, zero[:, 0], np.ones((30, 1), np.float32))
    assert flat.below(0) == [(0.05, 0.5), (0.5, 0.5), (0.95, 0.5)]
    assert np.array_equal(flat.standard(), np.zeros((30, 1)))
    assert np.isnan(flat.ratio(0)).all()


def test_errors_agree_with_those_of_the_fit(made: tuple[Fitted, Prepared, Recipe]) -> None:
    fitted, prepared, _ = made
    left = residuals(fitted.forecaster, prepared)
    quality = objective.evaluate(fitted.forecaster, prepared)
    np.testing.assert_allclose(left.by_horizon()[0], quality.error, rtol=1e-4)
    observed = [dict(left.below(k))[0.95] - dict(left.below(k))[0.05] for k in range(2)]
    np.testing.assert_allclose(observed, quality.coverage, atol=0.02)  # ties


def test_autocorrelation_of_noise_and_of_what_repeats() -> None:
    rng = np.random.default_rng(0)
    values, count = known(rng).autocorrelation(10)
    assert count == 300
    assert np.abs(values).max() < 0.05
    forecast = np.zeros((1, 3, 300, 5), np.float32)
    forecast[:, 1], forecast[:, 2] = -1, 1
    cycle = np.sin(np.arange(300) * 2 * np.pi / 8)[None, :, None] + 0.1 * rng.normal(size=(1, 300, 5))
    cycle[:, rng.random(300) < 0.2] = np.nan  # pairs of known ones are what counts
    values, _ = Residuals((1,), forecast, cycle.astype(np.float32), np.ones((300, 5), np.float32)).autocorrelation(10)
    assert values[7] > 0.9
    assert values[3] < -0.9


def test_error_by_readings_seen() -> None:
    """A forecaster that gets twice as good with time."""
    target = np.ones((1, 200, 4), np.float32)
    forecast = np.zeros((1, 3, 200, 4), np.float32)
    forecast[:, :, 100:] = 0.5
    x, y = Residuals((1,), forecast, target, np.ones((200, 4), np.float32)).by_age()
    assert (np.diff(x) > 0).all()
    assert y[0] == 1
    assert y[-1] == pytest.approx(0.5, abs=0.05)


def test_a_stretch_is_the_end_of_the_longest_run_of_known_readings() -> None:
    target = np.ones((1, 100, 1), np.float32)
    target[:, [0, 1, 20, 90]] = np.nan
    left = Residuals((1,), np.zeros((1, 3, 100, 1), np.float32), target, np.ones((100, 1), np.float32))
    assert left.stretch(0, 1000) == slice(21, 90)
    assert left.stretch(0, 30) == slice(60, 90)


def test_examples_go_from_well_to_badly_forecast_ones() -> None:
    target = np.ones((1, 50, 9), np.float32)
    forecast = np.broadcast_to(np.linspace(0.9, 0.1, 9), (1, 3, 50, 9)).astype(np.float32)
    left = Residuals((1,), forecast, target, np.ones((50, 9), np.float32))
    assert [series for _, series in left.examples((0.0, 0.5, 1.0))] == [0, 4, 8]
    assert left.examples((0.0, 0.5, 1.0))[0][0] == pytest.approx(0.1)


def test_residuals_are_those_of_the_network_without_dropout(made: tuple[Fitted, Prepared, Recipe]) -> None:
    _, prepared, _ = made
    torch.manual_seed(0)
    noisy = Forecaster(recipes.load(None, {"network.dropout": 0.5, "network.hidden": 6}).network, (3,)).train()
    first, again = (residuals(noisy, prepared).forecast for _ in range(2))
    assert np.array_equal(first, again)
    assert noisy.training


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (75, "1 min 15 s"), (7260, "2 h 1 min")])
def test_times(seconds: float, text: str) -> None:
    assert facts.duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(256, "256 bytes"), (79_748, "79.7 kB"), (3_200_000, "3.2 MB")])
def test_sizes(size: int, text: str) -> None:
    assert facts.size(size) == text
