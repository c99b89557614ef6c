"""The epoch that is kept is the best of those compressed as asked, and training ends when nothing is gained."""

from __future__ import annotations

from vit_deploy.compression.history import bar, best, duration, in_words, is_best, is_gained, is_over


def records(*losses, top1=1.0, settled_from=1):
    return [
        {"epoch": epoch, "top1": top1, "held_out_loss": loss, "settled": epoch >= settled_from}
        for epoch, loss in enumerate(losses, 1)
    ]


def test_the_least_loss_counts_and_not_one_image_more_or_less():
    history = records(2.3, 2.2, 2.1)
    history[0]["top1"], history[2]["top1"] = 1.0, 0.99
    assert best(history)["epoch"] == 3
    assert is_best(history[2], history[:2]) and not is_best(history[0], history[1:])


def test_an_epoch_that_is_not_compressed_as_asked_is_never_the_best():
    history = records(1.0, 3.0, 2.0, settled_from=2)
    assert best(history)["epoch"] == 3
    assert not is_best(history[0], []) and is_best(history[1], history[:1])


def test_the_model_before_the_first_step_is_compared_with_and_never_kept():
    before = {"epoch": 0, "top1": 1.0, "held_out_loss": 1.0, "settled": True}
    history = [before, *records(3.0, 2.0)]
    assert best(history)["epoch"] == 2 and is_best(history[1], [before])
    assert not is_best(before, [])
    assert not is_gained(history) and is_gained([before, *records(0.9)])
    assert is_gained(records(3.0)) and is_gained([before])
    assert not is_over([before], 1) and is_over([before, *records(2.0, 3.0)], 1)


def test_a_loss_as_good_is_no_better():
    assert not is_best(records(2.0)[0], records(2.0))


def test_it_is_over_after_as_many_epochs_without_gain_as_patience_has():
    history = records(3.0, 2.0, 2.5, 2.4)
    assert is_over(history, 2) and not is_over(history, 3)
    assert not is_over(history, 0)
    assert not is_over([], 1) and not is_over(records(3.0, 4.0, settled_from=9), 1)


def test_progress_reads_as_a_bar():
    assert bar(0, 7) == f"[{' ' * 20}]" and bar(7, 7) == f"[{'=' * 20}]"
    assert bar(1, 2) == f"[{'=' * 10}{' ' * 10}]"
    assert (duration(12.3), duration(600)) == ("12 s", "10 min")
    assert in_words(records(0.12345, top1=0.975)[0]) == "97.50% of the held-out images right, loss 0.1235"
