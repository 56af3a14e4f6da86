"""Learning-rate schedules: their values, and trainings that follow them step by step."""

from __future__ import annotations

import numpy as np
import pytest
from problems import batches_seen, make_data, make_model, train_by_hand

import fastdl
from fastdl.schedules import SCHEDULES, Constant, Cosine, CosLog4, Exponential, FlatCosine, Step, Warmup

N, BATCH, EPOCHS = 23, 3, 4  # 8 steps an epoch, 32 in all
LR = 0.3


def cosine(t, steps, final=0.0):
    return final + (LR - final) * (1 + np.cos(np.pi * min(1, t / steps))) / 2


# schedule -> the rate of step t of a fit of 32 steps, by hand
CASES = {
    "none": (None, lambda t: LR),
    "constant": (Constant(), lambda t: LR),
    "step": (Step(5, 0.4), lambda t: LR * 0.4 ** (t // 5)),
    "exponential": (Exponential(10, 0.25), lambda t: LR * 0.25 ** (t / 10)),
    "cosine-to-the-end": (Cosine(), lambda t: cosine(t, 32)),
    "cosine-of-20-steps": (Cosine(20, final=0.05), lambda t: cosine(t, 20, 0.05)),
    "coslog4": (CosLog4(), lambda t: LR * 0.5 * (1 - np.cos(2 * np.pi * np.log2(1 + 15 * t / 32)))),
    "flat-cosine": (FlatCosine(), lambda t: LR if t < 16 else LR * 0.5 * (1 + np.cos(np.pi * (t - 16) / 16))),
    "warmup": (Warmup(7), lambda t: LR * min(1, (t + 1) / 7)),
    "warmup-cosine": (Warmup(7, Cosine()), lambda t: LR * (t + 1) / 7 if t < 7 else cosine(t - 7, 25)),
    "warmup-step": (Warmup(3, Step(4)), lambda t: LR * (t + 1) / 3 if t < 3 else LR * 0.5 ** ((t - 3) // 4)),
}
every_case = pytest.mark.parametrize(("schedule", "rate"), CASES.values(), ids=CASES)


@every_case
@pytest.mark.parametrize("optimizer", [fastdl.SGD, fastdl.AdamW])
def test_32_steps_follow_the_reference(rng, schedule, rate, optimizer):
    """Adam with weight decay, too: its decay is multiplied by the rate of the step."""
    model = make_model([5, 6, 2], "tanh", "linear")
    X, y = make_data(rng, N, model.layers, "linear")
    optimizer = optimizer(lr=LR)
    rates = [rate(t) for t in range(32)]
    want, _ = train_by_hand(model, X, y, optimizer, batches_seen(N, BATCH, EPOCHS), rates=rates)
    fastdl.Trainer(model, optimizer, BATCH, EPOCHS, schedule=schedule).fit(X, y)
    np.testing.assert_allclose(model.parameters, want, rtol=1e-7, atol=1e-9)


@every_case
def test_rates_of_part_of_the_steps(schedule, rate):
    schedule = schedule or Constant()
    rates = schedule.rates(LR, 5, 20, span=(0, 32))
    assert rates.dtype == np.float64
    np.testing.assert_allclose(rates, [rate(t) for t in range(5, 25)], rtol=1e-14)


def train(schedule, fits, epochs, n_threads=1, first_call=1):
    model = make_model([6, 40, 3], "relu", "softmax", "float32")
    X, y = make_data(np.random.default_rng(3), N, model.layers, "softmax")
    trainer = fastdl.Trainer(model, fastdl.Adam(lr=0.05), BATCH, epochs, n_threads=n_threads, schedule=schedule)
    for _ in range(fits):
        if trainer._session is not None:
            trainer._session.tuner.steps = first_call
        trainer.fit(X, y)
    return model.parameters


@pytest.mark.parametrize("schedule", [Step(5, 0.4), Exponential(9), Cosine(30), Warmup(11, Cosine(30))], ids=repr)
def test_a_second_fit_goes_on(schedule):
    """fit(2) and fit(2) are fit(4), to the last bit."""
    np.testing.assert_array_equal(train(schedule, 2, 2), train(schedule, 1, 4))


def test_cosine_without_steps_sweeps_in_each_fit():
    first, second = Cosine().rates(LR, 0, 8, (0, 16)), Cosine().rates(LR, 16, 8, (16, 32))
    np.testing.assert_array_equal(first, second)
    # Behind a warm-up of 10 steps the first sweep has 6 steps, the second one 16.
    warm = Warmup(10, Cosine())
    np.testing.assert_allclose(warm.rates(LR, 10, 6, (0, 16)), [cosine(t, 6) for t in range(6)])
    np.testing.assert_allclose(warm.rates(LR, 16, 16, (16, 32)), [cosine(t, 16) for t in range(16)])


def test_coslog4_has_four_waves_and_flat_cosine_ends_at_0():
    """From 0 to lr and back at t = 1/15, 3/15, 7/15 and 1 of the fit; its tops are where log2(1 + 15 t) is halfway."""
    waves = CosLog4().rates(LR, 0, 16, (0, 15))
    np.testing.assert_allclose(waves[[0, 1, 3, 7, 15]], 0, atol=1e-12)
    tops = (2 ** (np.arange(4) + 0.5) - 1) / 15
    fine = CosLog4().rates(LR, 0, 150_001, (0, 150_000))
    np.testing.assert_allclose(fine[np.round(tops * 150_000).astype(int)], LR, rtol=1e-6)
    flat = FlatCosine().rates(1.0, 0, 101, (0, 100))
    assert (flat[:51] == 1).all()
    assert (np.diff(flat[51:]) < 0).all()
    np.testing.assert_allclose(flat[[75, 100]], [0.5, 0.0], atol=1e-12)


def test_the_same_bits_for_any_threads_and_calls():
    """However many threads work, and however many batches a native call takes."""
    schedule = Warmup(11, Cosine())
    want = train(schedule, 2, 2)
    for n_threads in (2, 3):
        np.testing.assert_array_equal(train(schedule, 2, 2, n_threads), want)
    for first_call in (3, 1000):
        np.testing.assert_array_equal(train(schedule, 2, 2, 1, first_call), want)


def test_constant_is_no_schedule():
    np.testing.assert_array_equal(train(None, 1, 3), train(Constant(), 1, 3))
    assert not np.array_equal(train(None, 1, 3), train(Step(1, 0.9), 1, 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Step(0), "Step: every: expected a number of steps, a whole number of at least 1, got 0"),
        (lambda: Step(2.5), "Step: every"),
        (lambda: Step(3, 0), "Step: expected factor above 0"),
        (lambda: Exponential(3, -1), "Exponential: factor"),
        (lambda: Exponential(3, float("nan")), "Exponential: factor"),
        (lambda: Cosine(0), "Cosine: steps"),
        (lambda: Cosine(final=-0.1), "Cosine: final"),
        (lambda: Warmup(0), "Warmup: steps"),
        (lambda: Warmup(3, "cosine"), r"Warmup: expected then to be a schedule such as Cosine\(\), got 'cosine'"),
        (
            lambda: fastdl.Trainer(fastdl.MLP([2, 2]), schedule="cosine"),
            r"schedule: .*schedules.Cosine\(\), got 'cosine'",
        ),
        (lambda: fastdl.Trainer(fastdl.MLP([2, 2]), schedule=Cosine), "schedule: expected an instance"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(fastdl.InputError, match=words):
        make()


def test_every_schedule_describes_itself():
    arguments = {"step": (5,), "exponential": (5,)}
    for name, cls in SCHEDULES.items():
        described = cls(*arguments.get(name, ())).describe()
        assert described.pop("name") == name
        assert cls(**described) == cls(*arguments.get(name, ()))
    assert Warmup(3, Step(2)).describe() == {
        "name": "warmup",
        "steps": 3,
        "then": {"name": "step", "every": 2, "factor": 0.5},
    }
    assert fastdl.schedules.Warmup is Warmup
