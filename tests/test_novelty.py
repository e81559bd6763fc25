"""A picture is called unlike those of training where no class fits it, and about as often as is said otherwise."""

import numpy as np
import pytest
from scipy.special import logsumexp

from darkroom.engines.novelty import FALSE_ALARMS, LEAST_PICTURES, energies, fit_novelty, novelties
from serving import FormulaEngine


def logits(number: int, *, fit: float = 6.0, seed: int = 0) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Of pictures that one class in five fits, by so much on average."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(number, 5))
    values[np.arange(number), generator.integers(0, 5, number)] += fit
    return values.astype(np.float32)


def test_energy_is_that_of_the_source() -> None:
    values = logits(50)
    assert energies(values, 1.7) == pytest.approx(-1.7 * logsumexp(values / 1.7, axis=1))


@pytest.mark.parametrize("number", [LEAST_PICTURES, 41, 77, 1000])
def test_the_stated_part_of_ordinary_pictures_is_called_unlike(number: int) -> None:
    values = logits(number)
    fitted = fit_novelty(values, 1.25)
    engine = FormulaEngine(novelty=fitted, temperature=1.25)
    called = [novelty.unlike for novelty in novelties(engine.bundle, values) if novelty is not None]
    assert np.mean(called) == pytest.approx(fitted["false_alarms"])
    assert fitted["false_alarms"] <= FALSE_ALARMS
    assert fitted["false_alarms"] > FALSE_ALARMS - 1.5 / number


def test_pictures_that_no_class_fits_are_told_apart() -> None:
    engine = FormulaEngine(novelty=fit_novelty(logits(500), 1.25), temperature=1.25)
    strange = novelties(engine.bundle, logits(500, fit=0, seed=1))
    assert np.mean([novelty.unlike for novelty in strange if novelty is not None]) > 0.9


def test_too_few_pictures_make_no_threshold() -> None:
    assert fit_novelty(logits(LEAST_PICTURES - 1), 1.0) == {}
    assert novelties(FormulaEngine(novelty={}).bundle, logits(3)) == [None] * 3
