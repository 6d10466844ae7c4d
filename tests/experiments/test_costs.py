"""What a call takes, and calls in processes of their own."""

import os
import time

import pytest

from experiments.engine.costs import alone, highest, seconds


def test_seconds_count_work_and_not_waiting():
    assert seconds(lambda: time.sleep(0.2)) < 0.1
    assert seconds(lambda: sum(range(3_000_000))) > 0.005


def test_the_highest_memory_is_that_of_a_process_with_jax():
    assert 50 * 2**20 < highest() < 1 << 40


@pytest.mark.thorough
def test_alone_gives_the_result_of_another_process():
    assert alone("it", os.getpid) != os.getpid()


@pytest.mark.thorough
def test_a_process_that_was_ended():
    with pytest.raises(ValueError, match="naf: its process was ended, perhaps for want of memory"):
        alone("naf", os._exit, 9)
