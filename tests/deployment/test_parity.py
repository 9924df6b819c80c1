"""What counts as agreement: the numbers, not the runtimes."""

import numpy as np
import pytest

from overtone.deployment.parity import bound_of, compare
from overtone.errors import OvertoneError

REFERENCE = np.array([[4.0, 0.0, -2.0], [1.0, 3.0, 2.9995], [0.0, 0.0, 1.0]])


def parity(logits, precision="float32", kind="normalised"):
    return compare(REFERENCE, np.asarray(logits), bound_of(precision, kind), "generated")


def test_differences_are_shares_of_the_largest_logit():
    found = parity(REFERENCE + np.array([[0, 2e-4, 0], [0, 0, 0], [0, 0, 0]]))
    assert found.scale == 4
    assert found.largest == pytest.approx(5e-5)
    found.check("it")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([[0, 0, 5e-4], [0, 0, 0], [0, 0, 0]], "largest difference is 1.25e-04"),
        ([[0, 0, 0], [0, 0, 0.002], [0, 0, 0]], "best class|largest difference"),
        ([[0, 0, 0], [0, 0, 0], [0, np.nan, 0]], "largest difference is nan"),
        ([[np.inf, 0, 0], [0, 0, 0], [0, 0, 0]], "largest difference is inf"),
    ],
)
def test_what_is_too_far_is_refused(change, message):
    with np.errstate(invalid="ignore"), pytest.raises(OvertoneError, match=message):
        parity(REFERENCE + change).check("the export")


def test_another_class_counts_unless_the_network_itself_is_undecided():
    swapped = REFERENCE[:, [0, 2, 1]]  # the second image: 3 and 2.9995 change places
    undecided = parity(swapped, "bfloat16")
    assert undecided.same_decisions == pytest.approx(1 / 3)
    assert undecided.agreement == pytest.approx(2 / 3)
    with pytest.raises(OvertoneError, match=r"best class is equal for 66\.7% of what is classified, below 95%"):
        undecided.check("the export")


def test_a_shift_of_all_logits_is_no_difference_in_the_mean_square():
    assert parity(REFERENCE + 1, "int8").rms == pytest.approx(0, abs=1e-12)
    assert parity(2 * REFERENCE, "int8").rms == pytest.approx(1)


def test_nothing_agrees_with_logits_of_nothing():
    with pytest.raises(OvertoneError, match="best class"):
        parity(np.full_like(REFERENCE, np.nan), "int8").check("the export")
    with pytest.raises(OvertoneError, match="shape"):
        parity(REFERENCE[:, :2])


def test_the_bounds_are_the_documented_ones():
    assert bound_of("float32").largest == 1e-4 and bound_of("float32").agreement == 1
    assert bound_of("float32", "pixels") == bound_of("float32")
    assert bound_of("float32", "image").largest == 2e-3
    assert bound_of("bfloat16", "pixels").rms == 0.05
    assert bound_of("int8") == bound_of("int8+bfloat16")
