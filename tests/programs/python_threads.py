"""Python threads with kernels and a training, then a child of fork: the same bits, the same sentences. argv[1]: the layer."""

import os
import sys
import threading

import numba
import numpy as np
from kernel_calls import KERNELS, arguments, contents

import fastdl
import fastdl_kernels as fk
from fastdl_kernels import regions

assert numba.threading_layer() == sys.argv[1]
LARGE = {"B": 300, "I": 90, "O": 80, "N": 90, "P": 40_000}


def run(name):
    given = arguments(KERNELS[name], "float32", LARGE)
    loss = KERNELS[name](*given.values())
    return contents(given), loss


def train():
    model = fastdl.MLP([30, 60, 3], seed=1)
    X, y = np.random.default_rng(0).normal(size=(300, 30)), np.arange(300) % 3
    fastdl.Trainer(model, batch_size=100, epochs=3, n_threads=2).fit(X, y)
    return model.parameters.tobytes()


wanted, trained = {name: run(name) for name in KERNELS}, train()
wrong = []


def hammer(names):
    for _ in range(20):
        for name in names:
            if run(name) != wanted[name]:
                wrong.append(name)


def hammer_training():
    for _ in range(10):
        if train() != trained:
            wrong.append("training")


threads = [threading.Thread(target=hammer, args=(order,)) for order in (list(KERNELS), list(KERNELS)[::-1])]
threads.append(threading.Thread(target=hammer_training))
for t in threads:
    t.start()
for t in threads:
    t.join()
assert not wrong, wrong


def child():
    assert regions.forked
    for name in ("softmax", "adam_step", "linear_forward"):
        assert run(name) == wanted[name], name
    assert train() == trained
    given = arguments(fk.softmax)
    given["out"].flags.writeable = False
    for bad, error, words in [
        (given, TypeError, "softmax: expected out to be writable"),
        (arguments(fk.softmax) | {"out": np.empty((2, 2))}, ValueError, "softmax: expected B = 5 (from logits) in out"),
        (arguments(fk.softmax) | {"out": None}, TypeError, "softmax: expected a NumPy array for out"),
        ({"logits": np.ones((2, 2))}, TypeError, "softmax: missing a required argument: 'out'"),
    ]:
        try:
            fk.softmax(**bad)
        except (TypeError, ValueError) as caught:
            if type(caught) is not error or not str(caught).startswith(words):
                raise
        else:
            raise AssertionError(words)


# The lock is held by another thread at the moment of the fork: the child must not wait for it.
held, done = threading.Event(), threading.Event()


def hold():
    with regions._lock:
        held.set()
        done.wait()


holder = threading.Thread(target=hold)
holder.start()
held.wait()
pid = os.fork()
if pid == 0:
    code = 1
    try:
        child()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
done.set()
holder.join()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert run("softmax") == wanted["softmax"]
print("fine")
