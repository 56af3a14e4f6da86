"""Models with an input stage: copies, files, checkpoints, what is said of them, and bad input."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from checkpointing import Saver
from problems import make_data
from staging import every_dtype, every_stage, staged

import fastdl
from fastdl import PBLD, Periodic, PiecewiseLinear, schedules

pytestmark = pytest.mark.usefixtures("one_thread")

# --- copies and files ---


@every_stage
@every_dtype
def test_copies_and_files_predict_and_go_on_alike(rng, tmp_path, embedding, scales, dtype):
    model = staged(embedding, scales, dtype=dtype)
    X, y = make_data(rng, 30, model.layers, "softmax")
    model.standardize(X)
    trainer = fastdl.Trainer(model, batch_size=10, epochs=2)
    trainer.fit(X, y)
    model.save(tmp_path / "m.fastdl")
    others = [fastdl.load(tmp_path / "m.fastdl"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for other in others:
        assert (other.embedding, other.scale_inputs) == (model.embedding, model.scale_inputs)
        np.testing.assert_array_equal(other.parameters, model.parameters)
        np.testing.assert_array_equal(other.forward(X), model.forward(X))
        assert np.shares_memory(other.input_stage.scale, other.parameters) or not scales
        assert not np.shares_memory(other.parameters, model.parameters)
    copied = pickle.loads(pickle.dumps(trainer))
    trainer.fit(X, y)
    copied.fit(X, y)
    np.testing.assert_array_equal(copied.model.parameters, model.parameters)
    assert not np.array_equal(others[0].parameters, model.parameters)


def test_a_file_without_a_stage_says_nothing_of_one(tmp_path):
    description = fastdl.MLP([2, 2])._description()
    assert not {"embedding", "scale_inputs"} & set(description)


# --- bad input ---


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: PBLD(size=1),
            "PBLD: size: expected the numbers that a column becomes, a whole number of at least 2, got 1",
        ),
        (lambda: PBLD(frequencies=0), "PBLD: frequencies"),
        (
            lambda: PBLD(sigma=0),
            "PBLD: sigma: expected the deviation of the initial frequencies, a finite number above 0",
        ),
        (lambda: PBLD(columns=[]), "PBLD: columns: expected None or a list of at least one column's number"),
        (lambda: PBLD(columns="age"), "PBLD: columns"),
        (lambda: Periodic(size=0), "Periodic: size: expected the numbers that a column becomes"),
        (lambda: Periodic(sigma=-1), "Periodic: sigma"),
        (lambda: PiecewiseLinear(pieces=0), "PiecewiseLinear: pieces: expected the pieces of a column"),
        (lambda: PiecewiseLinear(columns=[2, 2]), "PiecewiseLinear: columns: expected each column once"),
        (
            lambda: fastdl.MLP([3, 2], embedding=PiecewiseLinear()).fit_embedding(np.zeros((0, 3))),
            "X: expected at least one row to take quantiles of",
        ),
        (lambda: PBLD(columns=[1, 1]), r"PBLD: columns: expected each column once, got \[1, 1\]"),
        (lambda: PBLD(columns=[-1]), "PBLD: columns"),
        (
            lambda: fastdl.MLP([3, 2], embedding=PBLD(columns=[3])),
            "PBLD: columns: expected columns 0 to 2 of the model's inputs, got 3",
        ),
        (lambda: fastdl.MLP([3, 2], embedding="pbld"), r"embedding: expected an instance such as fastdl.PBLD\(\)"),
        (lambda: fastdl.MLP([3, 2], embedding=PBLD), "embedding: expected an instance"),
        (lambda: fastdl.MLP([3, 2], scale_inputs=1), "scale_inputs: expected True or False, got 1"),
        (
            lambda: fastdl.Trainer(fastdl.MLP([3, 2], scale_inputs=True), group_rates={"embedding": 0.1}),
            r"group_rates: expected groups that this model has \(weights, biases, input_scale\), got 'embedding'",
        ),
        (
            lambda: fastdl.Trainer(fastdl.MLP([3, 2], embedding=PBLD()), group_rates={"embedding": [0.1]}),
            r"group_rates\['embedding'\]: expected a factor",
        ),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(fastdl.InputError, match=words):
        make()


def test_sparse_rows_are_refused():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    model = fastdl.MLP([3, 2], scale_inputs=True)
    with pytest.raises(
        fastdl.InputError, match="X: expected a dense array, since this model embeds or scales its inputs"
    ):
        model.predict(scipy_sparse.csr_array(np.eye(3)))


@pytest.mark.parametrize("name", ["embedding", "scale_inputs", "input_stage"])
def test_a_model_keeps_its_stage(name):
    model = fastdl.MLP([3, 2], embedding=PBLD())
    with pytest.raises(fastdl.InputError, match=f"{name}: expected a model to keep what it is made of"):
        setattr(model, name, None)


def test_inspect_shows_the_stage(run, tmp_path):
    fastdl.MLP([3, 2], embedding=PBLD(), scale_inputs=True).save(tmp_path / "m.fastdl")
    shown = run("inspect", "m.fastdl").out
    row = next(line for line in shown.splitlines() if line.strip().startswith("inputs") and "PBLD" in line)
    assert "261" in row  # 3 * 83 + 12
    assert "PBLD, scaled" in row
    assert "12 × 2" in shown


@pytest.mark.parametrize("embedding", [Periodic(), PiecewiseLinear()])
def test_inspect_names_the_embedding(run, tmp_path, embedding):
    fastdl.MLP([3, 2], embedding=embedding).save(tmp_path / "m.fastdl")
    assert type(embedding).__name__ in run("inspect", "m.fastdl").out


def test_a_model_of_a_table_has_a_stage(rng):
    """`TableModel` is made like any other."""
    from fastdl.tables.model import TableModel

    model = TableModel([4, 3, 2], embedding=PBLD(columns=[1]))
    again = TableModel._of_description(model._description(), model.parameters)
    X = rng.normal(size=(5, 4))
    np.testing.assert_array_equal(again.forward(X), model.forward(X))


@pytest.mark.parametrize("options", [{"embedding": fastdl.PBLD()}, {"scale_inputs": True}])
def test_scikit_learn_has_no_stage(options):
    """A network of its own without the embedding would predict something else."""
    with pytest.raises(fastdl.InputError, match="expected a model of dense layers"):
        fastdl.MLP([3, 4, 1], output="linear", **options).to_sklearn()


def test_nor_has_it_a_clip(rng):
    with pytest.raises(fastdl.InputError, match="expected a model of dense layers"):
        fastdl.MLP([3, 4, 1], output="linear").standardize(rng.normal(size=(9, 3)), clip=3.0).to_sklearn()


def test_a_checkpoint_holds_the_stage_and_its_settings(tmp_path, rng):
    """The same bits as without an interruption, with schedules of decay and dropout and rates by groups."""
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    settings = {
        "optimizer": fastdl.AdamW(0.01), "batch_size": 16, "epochs": 6, "dropout": 0.2, "ntk": True,
        "schedule": schedules.CosLog4(), "decay_schedule": schedules.FlatCosine(), "dropout_schedule": schedules.FlatCosine(),
        "group_rates": {"embedding": 0.1, "input_scale": 6.0},
    }  # fmt: skip
    results = []
    for stops in (False, True):
        model = fastdl.MLP([3, 8, 1], output="linear", embedding=fastdl.PBLD(), scale_inputs=True)
        trainer = fastdl.Trainer(model, **settings)
        if stops:
            trainer.callbacks = [Saver(tmp_path / "c", 3)]
            trainer.fit(X, y)
            trainer = fastdl.Trainer.from_checkpoint(tmp_path / "c", callbacks=[])
        trainer.fit(X, y)
        results.append((trainer.model.parameters.tobytes(), trainer.history.loss))
    assert results[0] == results[1]


def test_a_checkpoint_refuses_an_average(tmp_path):
    trainer = fastdl.Trainer(fastdl.MLP([2, 1], output="linear"), callbacks=[fastdl.AverageParameters()])
    with pytest.raises(fastdl.InputError, match="no AverageParameters among the callbacks"):
        trainer.save_checkpoint(tmp_path / "c")
