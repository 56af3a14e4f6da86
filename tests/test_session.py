"""Training sessions: settings that change, snapshots, and the one check of what compiled code is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from problems import make_data, make_model

import fastdl
from fastdl.engine import Engine, Session, Settings
from fastdl.errors import EngineError
from fastdl.optimizers import OPTIMIZERS

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS, N = [5, 12, 7, 3], 40
FIRST = Settings(8, fastdl.Adam(), n_threads=1)


def session_of(settings=FIRST, output="softmax", dtype="float32"):
    model = make_model(LAYERS, "tanh", output, dtype)
    return Session(model.architecture, model.parameters, settings)


@pytest.fixture
def data(rng):
    X, y = make_data(rng, N, LAYERS, "softmax")
    return X.astype("float32"), y


def epoch(session, data, **changes):
    """One epoch in the order of the rows; arguments may be replaced by name."""
    size = session.settings.batch_size
    arguments = {
        "x": data[0],
        "y": data[1],
        "weight": None,
        "order": np.arange(N),
        "rates": np.full(-(-N // size), 0.01),
    }
    return session.epoch(**{**arguments, **changes})[0]


def numbers(session):
    return [session.parameters.copy(), *(state.copy() for state in session.states)]


# --- settings ---

CHANGES = {
    "batch_size": {"batch_size": 13},
    "l2": {"l2": 0.3},
    "clip_norm": {"clip_norm": 0.01},
    "dropout": {"dropout": (0.5, 0.25)},
    "n_threads": {"n_threads": 2},
    "clocked": {"clocked": True},
    "numbers": {"optimizer": fastdl.Adam(beta1=0.5, beta2=0.9, eps=1e-3)},
    "adamw": {"optimizer": fastdl.AdamW(weight_decay=0.5)},
    "several": {"batch_size": 40, "clip_norm": 0.1, "dropout": (0.1, 0.0), "seed": 3},
}


@pytest.mark.parametrize("name", CHANGES)
def test_new_settings_hold_and_states_are_kept(data, name):
    """As in a session that has had these settings all along, and is given parameters, states and steps."""
    session = session_of()
    epoch(session, data)
    changed = replace(FIRST, **CHANGES[name])
    other = session_of(changed)
    epoch(other, data)
    other.steps_done = other._updates_done = 5
    for mine, its in zip([other.parameters, *other.states], numbers(session), strict=True):
        mine[:] = its
    session.apply(changed)
    assert session.settings == changed
    assert session.steps_done == 5
    assert epoch(session, data) == epoch(other, data)
    for mine, its in zip(numbers(session), numbers(other), strict=True):
        np.testing.assert_array_equal(mine, its)
    same = session_of()
    epoch(same, data)
    epoch(same, data)
    assert np.array_equal(same.parameters, session.parameters) == (name in ("n_threads", "clocked"))


def test_the_same_settings_change_nothing_and_numbers_need_no_memory(data):
    session = session_of(replace(FIRST, l2=0.1))
    workspace, states = session.workspace, session.states
    session.apply(replace(FIRST, l2=0.1))
    session.apply(replace(FIRST, l2=0.2, dropout=(0.1, 0.1), seed=9, optimizer=fastdl.AdamW()))
    assert session.workspace is workspace
    assert session.states is states
    session.apply(replace(FIRST, clip_norm=1.0))
    assert session.workspace is not workspace
    assert session.states is states


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("before", ["sgd", "momentum", "adam"])
def test_another_optimizer_starts_as_new(data, name, before):
    """Its states are 0 and its bias correction counts from 1, unless they are of the same kind; steps go on."""
    session = session_of(replace(FIRST, optimizer=OPTIMIZERS[before](lr=0.1)))
    epoch(session, data)
    other = OPTIMIZERS[name]()
    old = OPTIMIZERS[before]()
    kept = (other.code, other.n_states) == (old.code, old.n_states)
    had = numbers(session)
    session.apply(replace(FIRST, optimizer=other))
    assert session.steps_done == 5
    for state, old in zip(session.states, had[1:], strict=True):
        assert np.array_equal(state, old) if kept else not state.any()
    if not kept:
        new = session_of(replace(FIRST, optimizer=other))
        new.parameters[:] = session.parameters
        assert epoch(session, data) == epoch(new, data)
        np.testing.assert_array_equal(session.parameters, new.parameters)


def test_an_epoch_over_some_rows_takes_these(data):
    """Also where they would fit into one batch, which then is not all of the data."""
    x, y = data
    rows = np.array([3, 30, 31, 7])
    session, want = session_of(replace(FIRST, batch_size=N)), session_of(replace(FIRST, batch_size=N))
    loss = epoch(session, data, order=rows)
    assert loss == epoch(want, data, x=x[rows].copy(), y=y[rows].copy(), order=np.arange(4))
    np.testing.assert_array_equal(session.parameters, want.parameters)


# --- snapshots ---


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_restore_goes_back_to_the_snapshot(data, name):
    """The way on from it is the same, bit for bit, as often as one likes."""
    session = session_of(replace(FIRST, optimizer=OPTIMIZERS[name](lr=0.01), dropout=(0.3, 0.3)))
    epoch(session, data)
    session.snapshot()
    there = numbers(session)
    ends = []
    for _ in range(3):
        losses = [epoch(session, data), epoch(session, data)]
        assert session.steps_done == 15
        ends.append((losses, [a.tobytes() for a in numbers(session)]))
        for array in [session.parameters, *session.states]:
            array[:] = np.nan
        session.restore()
        assert session.steps_done == 5
        for mine, its in zip(numbers(session), there, strict=True):
            np.testing.assert_array_equal(mine, its)
    assert ends[0] == ends[1] == ends[2]


def test_a_snapshot_costs_no_new_memory_and_belongs_to_its_states(data):
    session = session_of()
    session.snapshot()
    buffers = session._snapshot[0]
    epoch(session, data)
    session.snapshot()
    assert session._snapshot[0] is buffers
    session.apply(replace(FIRST, optimizer=fastdl.SGD()))
    with pytest.raises(EngineError, match="no snapshot"):
        session.restore()


# --- what compiled code is given ---


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    result = raw[1:].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def read_only(array):
    result = array.copy()
    result.flags.writeable = False
    return result


BROKEN = {
    "dtype": lambda a: a.astype("float16") if a.dtype.kind == "f" else a.astype("int32"),
    "byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "layout": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "alignment": unaligned,
    "read-only": read_only,
    "dimensions": lambda a: a[None],
    "length": lambda a: a[:-1].copy(),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", ["x", "y", "weight", "order", "rates", "targets"])
def test_arrays_that_do_not_fit_are_refused(data, name, kind):
    """By one sentence, before anything is touched."""
    output = "linear" if name == "targets" else "softmax"
    session = session_of(output=output)
    y = np.ones((N, 3), np.float32) if name == "targets" else data[1]
    arrays = {"x": data[0], "y": y, "weight": np.ones(N, np.float32), "order": np.arange(N)}
    arrays["rates"] = session.step_table(np.full(5, 0.01))
    assert np.isfinite(epoch(session, data, **arrays))
    before = numbers(session)
    key = "y" if name == "targets" else name
    arrays[key] = BROKEN[kind](arrays[key])
    if (name, kind) == ("order", "length"):
        assert np.isfinite(epoch(session, data, **arrays))  # fewer rows are as good
        return
    with pytest.raises(EngineError, match="this is a fault of fastdl, please report it"):
        epoch(session, data, **arrays)
    for mine, its in zip(numbers(session), before, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("kind", BROKEN)
def test_parameters_that_do_not_fit_are_refused(data, kind):
    session = session_of()
    session.parameters = BROKEN[kind](session.parameters)
    with pytest.raises(EngineError, match="parameters"):
        epoch(session, data)


@pytest.mark.parametrize("kind", BROKEN)
def test_predictions_and_losses_check_as_well(data, kind):
    model = make_model(LAYERS, "tanh", "softmax", "float32")
    engine = Engine(model.architecture, model.parameters)
    raw = engine.forward(data[0])
    assert np.isfinite(engine.mean_loss(raw, data[1]))
    calls = [
        lambda: engine.mean_loss(raw, BROKEN[kind](data[1])),
        lambda: engine.mean_loss(BROKEN[kind](raw), data[1]),
        lambda: engine.loss_and_gradient(data[0], BROKEN[kind](data[1]), None, 0.0),
        lambda: Engine(model.architecture, BROKEN[kind](model.parameters)).forward(data[0]),
        lambda: Engine(model.architecture, BROKEN[kind](model.parameters)).classes(data[0]),
    ]
    if kind != "length":  # any number of rows is right
        calls += [lambda: engine.forward(BROKEN[kind](data[0])), lambda: engine.classes(BROKEN[kind](data[0]))]
    for call in calls:
        with pytest.raises(EngineError, match="this is a fault of fastdl"):
            call()


@pytest.mark.parametrize("n_classes", [3, 50])
@pytest.mark.parametrize("label", [-1, "n", 10**12, -(10**12)])
@pytest.mark.parametrize("batch_size", [8, N])
def test_a_label_that_is_no_class_touches_no_memory(rng, n_classes, label, batch_size):
    """The loss of such a row is NaN, and the label is named."""
    model = make_model([5, 9, n_classes], "tanh", "softmax", "float32")
    session = Session(model.architecture, model.parameters, replace(FIRST, batch_size=batch_size))
    x, y = rng.normal(size=(N, 5)).astype("float32"), rng.integers(0, n_classes, N)
    y[17] = n_classes if label == "n" else label
    with pytest.raises(EngineError, match=f"label {y[17]} in row 17, where there are {n_classes} classes"):
        epoch(session, (x, y))
    engine = Engine(model.architecture, model.parameters)
    with pytest.raises(EngineError, match="in row 17"):
        engine.mean_loss(engine.forward(x), y)
    with pytest.raises(EngineError, match="in row 17"):
        engine.loss_and_gradient(x, y, None, 0.0)
    assert np.isfinite(session.parameters).all()


def test_inputs_that_are_not_finite_are_never_a_result():
    """The owner of an engine refuses them; where it does not, the engine does."""
    model = make_model(LAYERS, "tanh", "softmax", "float32")
    x = np.full((2, 5), np.inf, np.float32)
    with pytest.raises(EngineError, match="not finite"):
        Engine(model.architecture, model.parameters).forward(x)
    with pytest.raises(fastdl.InputError, match="expected finite numbers"):
        model.forward(x)
