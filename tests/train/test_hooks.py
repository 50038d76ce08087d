import re
from dataclasses import replace

import pytest
from alone import Memory, run_epoch, task_of
from paths import REPOSITORY
from test_method import KEYS, config
from test_trial import network, tried

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.errors import ConfigError, ModelError
from mlaas4hep_dask.run.method import method_of
from mlaas4hep_dask.train.course import Course
from mlaas4hep_dask.train.rank import Rank

HOOKS = """
import math

class Watch:
    def __init__(self, stop_after=99, where=()):
        self.stop_after, self.seen = stop_after, where

    def on_train_begin(self, context):
        context.network.seen = [("train begins", context.epoch)]

    def on_epoch_begin(self, context):
        context.network.seen.append(("epoch begins", context.epoch, context.step))

    def on_step(self, context):
        assert math.isfinite(context.loss)
        context.network.seen.append((context.rank, context.epoch, context.step))

    def on_epoch_end(self, context):
        loss = context.metrics["validation"]["loss"]
        context.network.seen.append(("epoch ends", context.epoch, loss))
        if context.epoch == self.stop_after:
            context.stop()

    def on_train_end(self, context):
        context.network.seen.append("train ends")

class Halve:
    def on_epoch_end(self, context):
        for group in context.optimiser.param_groups:
            group["lr"] /= 2

class Broken:
    def on_step(self, context):
        if context.step == 3:
            return context.loss / 0

class Misspelt:
    def on_epoch_ends(self, context):
        pass

class Nothing:
    pass

class Told:
    on_gpu = False

    def tell(self, name, context):
        seen = context.network.__dict__.setdefault("told", [])
        seen.append((name, context.epoch, context.step, dict(context.metrics)))

    def on_train_begin(self, context):
        self.tell("train begins", context)

    def on_epoch_begin(self, context):
        self.tell("epoch begins", context)

    def on_train_end(self, context):
        self.tell("train ends", context)
"""


def method(folder, *hooks):
    (folder / "hooks.py").write_text(HOOKS)
    keys = {**KEYS, "training": {"hooks": list(hooks), "scheduler": None}}
    return method_of(Config.from_mapping(keys, base=folder))


def trained(folder, *hooks, epochs=2):
    memory = Memory()
    rank = Rank(task_of(memory, method=method(folder, *hooks)), None)
    results = []
    for epoch in range(1, epochs + 1):
        results.append(run_epoch(rank, memory, epoch))
        if results[-1].is_last:
            break
    return rank, memory, results


def test_a_hook_is_told_of_every_epoch_and_every_step(tmp_path):
    rank, memory, results = trained(tmp_path, "hooks.py:Watch")
    rank.measure(memory, "test")
    train = rank.task.assignments.train
    steps = sum(map(train.num_steps, range(train.num_windows)))
    assert steps > 20
    losses = [result.splits["validation"].loss for result in results]
    expected = [("train begins", 1)]
    for epoch, loss in enumerate(losses, 1):
        expected.append(("epoch begins", epoch, 0))
        expected += [(0, epoch, step) for step in range(1, steps + 1)]
        expected.append(("epoch ends", epoch, loss))
    assert rank.learner.network.seen == [*expected, "train ends"]
    rank.measure(memory, "test")
    assert rank.learner.network.seen[-2:] == [expected[-1], "train ends"]  # it ends once


def test_the_hooks_of_the_page_work_beside_frozen_parameters(tmp_path, capsys):
    page = (REPOSITORY / "docs" / "how-to" / "training.md").read_text()
    (text,) = re.findall(r"```python\n(class Norms:.*?)```", page, re.DOTALL)
    (tmp_path / "own.py").write_text(text.replace("% 100", "% 10"))
    until = {"callable": "own.py:Until", "kwargs": {"auc": 0.0}}
    keys = {**KEYS, "training": {"hooks": ["own.py:Norms", until], "freeze": ["0.*"]}}
    memory = Memory()
    chosen = method_of(Config.from_mapping(keys, base=tmp_path))
    result = run_epoch(Rank(task_of(memory, method=chosen), None), memory, 1)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in printed] == [["1", "10"], ["1", "20"], ["1", "30"]]
    assert all(float(norm) > 0 for *_, norm in printed)
    assert result.is_last  # its other hook has ended the training


def test_the_loss_that_a_hook_is_told_is_that_of_the_step(tmp_path):
    (tmp_path / "own.py").write_text(
        "class Sum:\n"
        "    def on_train_begin(self, context):\n"
        "        context.network.total = []\n"
        "    def on_step(self, context):\n"
        "        context.network.total.append(context.loss)\n"
    )
    keys = {**KEYS, "training": {"hooks": ["own.py:Sum"], "accumulate": 2}}
    memory = Memory()
    chosen = method_of(Config.from_mapping(keys, base=tmp_path))
    rank = Rank(task_of(memory, method=chosen), None)
    result = run_epoch(rank, memory, 1)
    mean = result.splits["train"].values["learning_loss"]
    found = rank.learner.network.total
    assert sum(found) / len(found) == pytest.approx(mean, rel=0.02)  # steps differ by an event


def test_a_hook_ends_the_training_after_its_epoch(tmp_path):
    kwargs = {"stop_after": 2}
    _, _, results = trained(tmp_path, {"callable": "hooks.py:Watch", "kwargs": kwargs}, epochs=9)
    assert [result.is_last for result in results] == [False, True]
    assert Course(9).is_over([{}, {"stopped": True}])
    assert not Course(9).is_over([{}, {}])


def test_what_a_hook_sets_is_in_the_checkpoint(tmp_path):
    _, memory, results = trained(tmp_path, "hooks.py:Halve")
    resumed = Rank(task_of(memory, method=method(tmp_path, "hooks.py:Halve")), results[-1].state)
    assert resumed.learner.stepper.learning_rate == pytest.approx(0.01 / 4)


def test_a_hook_knows_the_metrics_of_the_epoch_before_after_a_resume_too(tmp_path):
    memory, chosen = Memory(), method(tmp_path, "hooks.py:Told")
    rank = Rank(task_of(memory, method=chosen), None)
    first = run_epoch(rank, memory, 1)
    metrics = {name: split.as_json() for name, split in first.splits.items()}
    part = rank.run_epoch(memory, lambda _: None, 2, 0.0)  # a pause after its first window
    within = Rank(rank.task, part.state, (part.part,))
    run_epoch(within, memory, 2)
    steps = rank.task.assignments.train.num_steps(0)
    assert within.learner.network.told == [
        ("train begins", 2, steps, metrics),
        ("epoch begins", 2, steps, metrics),
    ]
    after = Rank(rank.task, first.state)
    run_epoch(after, memory, 2)
    assert after.learner.network.told[1] == ("epoch begins", 2, 0, metrics)


def test_training_ends_for_a_hook_where_test_events_alone_are_left(tmp_path):
    _, memory, results = trained(tmp_path, "hooks.py:Told")
    task = task_of(memory, method=method(tmp_path, "hooks.py:Told"))
    rank = Rank(task, results[-1].state)
    rank.measure(memory, "test")
    rank.measure(memory, "test")
    metrics = {name: split.as_json() for name, split in results[-1].splits.items()}
    assert rank.learner.network.told == [
        ("train begins", 2, 0, metrics),
        ("train ends", 2, 0, metrics),
    ]


def test_what_is_wrong_with_a_hook_is_said_with_its_line(tmp_path):
    line = HOOKS.splitlines().index("            return context.loss / 0") + 1
    words = rf"hooks\[1\] 'hooks.py:Broken' failed in on_step in line {line} of hooks.py \(ZeroDiv"
    with pytest.raises(ModelError, match=words):
        trained(tmp_path, "hooks.py:Halve", "hooks.py:Broken")
    with pytest.raises(ModelError, match=r"on_epoch_ends.* did you mean 'on_epoch_end'"):
        trained(tmp_path, "hooks.py:Misspelt")
    with pytest.raises(ModelError, match=r"gave Nothing, which has none of on_train_begin, on_"):
        trained(tmp_path, "hooks.py:Nothing")
    with pytest.raises(ModelError, match=r"has no parameter 'stop', it takes stop_after"):
        trained(tmp_path, {"callable": "hooks.py:Watch", "kwargs": {"stop": 1}})
    with pytest.raises(ModelError, match=r"training.hooks\[0\]: hooks.py has no 'Wach'; did you"):
        method(tmp_path, "hooks.py:Wach")


def test_a_hook_that_cannot_be_made_and_a_lower_precision_are_tried_before_training(tmp_path):
    text = network("return self.linear(x)")
    lower = replace(method(tmp_path, "hooks.py:Watch"), precision="bfloat16")
    assert tried(tmp_path, text, method=lower).warnings == ()
    with pytest.raises(ModelError, match=r"hooks\[0\] 'hooks.py:Nothing' gave Nothing"):
        tried(tmp_path, text, method=method(tmp_path, "hooks.py:Nothing"))


def test_a_changed_hook_changes_what_a_run_is_known_by(tmp_path):
    before = method(tmp_path, "hooks.py:Watch", "hooks.py:Halve").codes
    assert set(before) == {"hooks[0]", "hooks[1]"}
    (tmp_path / "hooks.py").write_text(HOOKS + "# more\n")
    keys = {**KEYS, "training": {"hooks": ["hooks.py:Watch"], "scheduler": None}}
    after = method_of(Config.from_mapping(keys, base=tmp_path)).codes
    assert after["hooks[0]"].digest != before["hooks[0]"].digest


def test_dataset_yaml_names_hooks_by_import_path(tmp_path):
    keys = {**KEYS, "training": {"hooks": ["hooks.py:Watch", {"callable": "a.b:c"}]}}
    there = Config.from_mapping(keys, base=tmp_path)
    assert [hook.callable for hook in there.training.hooks] == ["hooks.py:Watch", "a.b:c"]
    assert f"{tmp_path}/hooks.py:Watch" in there.to_yaml(absolute=True)
    with pytest.raises(ConfigError, match=r"hooks\[0\]\S*: expected 'module:callable'"):
        config(hooks=["Watch"])
    with pytest.raises(ConfigError, match=r"training.callbacks: .*did you mean 'hooks'"):
        config(callbacks=["a:b"])
