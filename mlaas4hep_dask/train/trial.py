"""Tries a user's network on real events, before anything is trained.

What is tried is thrown away: the network that is trained has seen no event before its first step.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.examples import Examples
from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.export import to_torchscript
from mlaas4hep_dask.export.call import Call, call_of
from mlaas4hep_dask.export.contract import compared, outputs_of, require_shape
from mlaas4hep_dask.export.programs import to_programs
from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.train.arithmetic import Arithmetic
from mlaas4hep_dask.train.bounds import bounds
from mlaas4hep_dask.train.elsewhere import learn_on
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.hooks import Context, Hooks
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import ModelSource, described
from mlaas4hep_dask.train.requirements import (
    SHOWN,
    are_equal,
    changed_settings,
    learned,
    require_cpu,
    require_fixed,
    require_gradients,
    require_parameters,
    require_running_averages,
    sets_seed,
    torch_settings,
)
from mlaas4hep_dask.train.views import cautions_of
from mlaas4hep_dask.usercode import RAISED, TRIAL_SECONDS, limited

STEP = 1e-3  # size of the steps of a trial; a large one is no fault of the network's
FEW = 3  # events of the first call


@dataclass(frozen=True)
class Training:
    """How the network will be trained.

    Parameters
    ----------
    objective : Objective
        What it learns to give.
    encoding : Encoding
        How events become its input.
    batches : sequence of int
        Events of a rank in its usual step, and in its smallest one.
    num_ranks : int
        Number of ranks.
    method : Method
        How it learns.
    learning_rate : float
        Step size, where the method names no other.
    specs : Specs, optional
        Those that the encoding follows from.
    formats : sequence of str
        In which it is exported beside TorchScript; see `to_programs`.
    seconds : float
        In which each step of the trial has to come back.
    steps, epochs : int
        Steps of an epoch, and epochs.
    device : str
        On which it learns, as torch calls it. It is scored and exported on the CPU.
    """

    objective: Objective
    encoding: Encoding
    batches: Sequence[int] = (100,)
    num_ranks: int = 1
    method: Method = field(default_factory=Method)
    learning_rate: float = STEP
    specs: Specs | None = None
    formats: Sequence[str] = ()
    seconds: float = TRIAL_SECONDS
    steps: int = 1000
    epochs: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Trained:
    """A network that was trained, for a step or to the end, and exported.

    Parameters
    ----------
    network : torch.nn.Module
        The network, in eval mode.
    content : bytes
        Its TorchScript file.
    files : mapping of str to bytes
        Its files of other formats, by name.
    warnings : tuple of str
        What its user should know.
    """

    network: torch.nn.Module
    content: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def try_model(model: ModelSource, events: Examples, training: Training) -> Trained:
    """Build a network, take a few steps, score and export it.

    Parameters
    ----------
    model : ModelSource
        Builds the network.
    events : Examples
        Real events.
    training : Training
        How it will be trained.

    Raises
    ------
    ModelError
        When the network cannot be built, trained, scored or exported as it should be; names
        the place in the user's code where there is one.
    """
    with torch.random.fork_rng(devices=[]):
        return _Trial(model, events, training).run()


def exported(
    model: ModelSource,
    state: bytes,
    events: Examples,
    objective: Objective,
    encoding: Encoding,
    *,
    specs: Specs | None = None,
    formats: Sequence[str] = (),
) -> Trained:
    """The network of a checkpoint, exported and compared on real events.

    Parameters
    ----------
    model, events, objective, encoding, specs, formats
        As for `try_model` and `Training`.
    state : bytes
        The checkpoint.

    Raises
    ------
    ModelError
        When the network breaks its contract, or its export gives other scores.
    """
    network = model.build(Given.of(encoding, objective, specs))
    network.load_state_dict(torch.load(io.BytesIO(state), weights_only=True)["network"])
    rows = (torch.tensor(events.x), torch.tensor(events.missing))
    try:
        content = to_torchscript(network, encoding, objective, rows=rows, is_known=True)
        return Trained(
            network, content, to_programs(network, encoding, objective, events, formats=formats)
        )
    except ModelError as error:
        raise model.error(error.message) from error


class _Trial:
    def __init__(self, model: ModelSource, events: Examples, training: Training) -> None:
        self._model = model
        self._training = training
        self._objective = training.objective
        self._given = Given.of(training.encoding, training.objective, training.specs)
        self._events = events
        self._x, self._y, self._w = map(torch.tensor, (events.x, events.y, events.w))
        self._missing = torch.tensor(events.missing)
        self._refused = f"does not accept {described(self._given.row_shape)}"

    def run(self) -> Trained:
        training = self._training
        network = self._network()
        call = self._checked(lambda: call_of(network))
        self._checked(lambda: require_cpu(network))
        self._checked(lambda: require_running_averages(network))
        warnings = self._checked(lambda: self._begun(network))
        network.train()
        warnings += self._checked(lambda: self._train(network, call))
        network.eval()
        outputs = self._checked(lambda: self._score(network, call))
        rows = (self._x, self._missing)
        if (device := training.device) != "cpu":
            what = (self._model, self._given, self._objective, training.method)
            self._checked(lambda: learn_on(device, *what, (*rows, self._y, self._w)))
        again = self._network()
        self._checked(lambda: self._require_same(again, network, outputs))
        facts = (again, self._training.encoding, self._objective)
        content = self._checked(lambda: to_torchscript(*facts, rows=rows, is_known=True))
        files = self._checked(lambda: self._programs(again))
        warnings += cautions_of(again)
        warnings += self._checked(lambda: bounds(network, call, rows, outputs, self._objective))
        sentences = tuple(f"model {self._model.reference!r} {each}" for each in warnings)
        return Trained(again, content, files, sentences)

    def _programs(self, network: torch.nn.Module) -> dict[str, bytes]:
        training = self._training
        facts = (network, training.encoding, self._objective, self._events)
        return to_programs(*facts, formats=training.formats)

    def _checked(self, step: Any) -> Any:
        """What a step returns; whatever it raises becomes an error that names the model."""
        settings = torch_settings()
        try:
            with limited(self._training.seconds):
                return step()
        except ModelError as error:
            self._require_settings(settings)
            if error.facts:
                raise
            raise self._model.error(error.message) from error
        except RAISED as error:  # whatever the user's code raises
            self._require_settings(settings)
            raise self._model.error(self._refused, error) from error
        finally:
            self._require_settings(settings)

    def _network(self) -> torch.nn.Module:
        network: torch.nn.Module = self._checked(lambda: self._model.build(self._given))
        return network

    def _require_settings(self, before: dict[str, Any]) -> None:
        if changed := changed_settings(before):
            raise self._model.error(
                f"changes {' and '.join(changed)} of the whole process, which others share; give "
                "layers and tensors their own dtype"
            )

    def _begun(self, network: torch.nn.Module) -> list[str]:
        """Give a network the parameters with which it begins; what there is to warn of them."""
        start = self._training.method.warm_start
        if start is None:
            return []
        start.fill(network)
        return list(filter(None, [start.difference(self._training.encoding.columns())]))

    def _train(self, network: torch.nn.Module, call: Call) -> list[str]:
        """Take two steps as a rank does, of the usual size and of the smallest."""
        names = {name for name, _ in network.named_parameters()}
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        few = _spread(len(self._x), FEW)
        if (decay := self._training.method.ema) is not None:
            from mlaas4hep_dask.train.stepping import averaged

            averaged(network, decay)  # as ranks do, before its first call
        with torch.no_grad():
            self._outputs(call, self._x[few], self._missing[few], self._refused)
        require_fixed(network, names, before, self._training.num_ranks)
        require_parameters(network)
        arithmetic = Arithmetic(self._training.method.precision)
        step = self._stepping(network)
        Hooks(self._training.method.hooks, Context(network, None))  # they are made alone
        warnings = []
        if sets_seed(lambda: call(self._x[few].clone(), self._missing[few].clone())):
            warnings.append(
                "sets the seed of torch's random numbers in its forward, so that dropout and the "
                "like are the same in every step; a torch.Generator of its own does not"
            )
        loss = self._training.method.loss.batch_loss(self._objective)
        for size in dict.fromkeys(self._training.batches):
            places = _spread(len(self._x), size)
            x, missing = self._x[places], self._missing[places]
            fails = f"fails in training on a batch of {size} event{'s' * (size != 1)}"
            if size < max(self._training.batches):
                fails += ", the smallest of an epoch (another training.batch_size has another)"
            with arithmetic.cast():
                outputs = self._outputs(call, x, missing, fails)
            outputs = arithmetic.restored(outputs)
            network.zero_grad()
            y = (x, missing) if self._objective.gives_rows else self._y[places]
            total = loss(outputs, y, self._w[places])
            if not bool(torch.isfinite(total)):
                raise ModelError(
                    f"has a loss that is not finite ({float(total.detach()):g}) on {size} events, "
                    "whose outputs and targets are"
                )
            total.backward(torch.tensor(1.0))  # type: ignore[no-untyped-call]
            if size > 0:
                require_gradients(network, self._training.num_ranks)
            step()
        return warnings

    def _stepping(self, network: torch.nn.Module) -> Callable[[], None]:
        """Takes a step as training will, or one like it where that needs no trial."""
        training, method = self._training, self._training.method
        if method.is_usual:
            learned(network, method.freeze)
            return lambda: _step(network)
        from mlaas4hep_dask.train.stepping import Stepper

        stepper = Stepper(
            network,
            method,
            learning_rate=training.learning_rate,
            steps=training.steps,
            epochs=training.epochs,
        )

        def step() -> None:
            stepper.step()
            stepper.end_epoch(1.0)
            stepper.require_state()

        return step

    def _outputs(
        self, call: Call, x: torch.Tensor, missing: torch.Tensor, fails: str
    ) -> torch.Tensor:
        """What the network gives in training, in the shape that the loss takes."""
        size, objective = len(x), self._objective
        copies = x.clone(), missing.clone()
        try:
            result = call(*copies)
        except RAISED as error:  # whatever the user's code raises
            raise self._model.error(fails, error) from error
        require_shape(result, size, objective.num_outputs, is_row=objective.gives_rows)
        if not (torch.equal(copies[0], x) and torch.equal(copies[1], missing)):
            raise ModelError(IN_PLACE)
        outputs: torch.Tensor = result
        failed = int((~torch.isfinite(outputs.reshape(size, -1))).any(dim=1).sum()) if size else 0
        if failed:
            raise ModelError(
                f"gives numbers that are not finite for {failed} of {size} events in training"
            )
        return outputs.reshape(size, *objective.output_tail)

    def _score(self, network: torch.nn.Module, call: Call) -> torch.Tensor:
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with torch.no_grad():
            outputs = outputs_of(call, self._x, self._missing, self._objective)
        changed = [n for n, v in network.state_dict().items() if not are_equal(v, before.get(n))]
        if changed:
            raise ModelError(
                f"changes its {', '.join(changed[:SHOWN])} in eval mode, so that scores would "
                "depend on what was scored before; let that happen `if self.training`"
            )
        return outputs

    def _require_same(
        self, again: torch.nn.Module, network: torch.nn.Module, outputs: torch.Tensor
    ) -> None:
        """A network that is built again and takes up what was learned scores as the first does."""
        buffer = io.BytesIO()
        torch.save(network.state_dict(), buffer)
        buffer.seek(0)
        try:
            again.load_state_dict(torch.load(buffer, weights_only=True))
        except RAISED as error:  # as above
            raise self._model.error(
                "does not take up its own state_dict, which checkpoints hold", error
            ) from error
        again.eval()
        activation = self._objective.activation()
        with torch.no_grad():
            others = call_of(again)(self._x.clone(), self._missing.clone())
            others = others.reshape(outputs.shape)
            scores = [activation(each, self._x, self._missing) for each in (others, outputs)]
        apart = compared(scores[0], scores[1], self._x, self._objective)
        if apart:
            raise ModelError(
                f"gives other scores when it is built again and takes up its state_dict, {apart}: "
                "what it learns has to be in parameters or buffers (register_buffer), and what its "
                "callable draws at random too"
            )


IN_PLACE = (
    "changes its input in place: write x = x * 2 in place of x.mul_(2), or x = x.clone() first; "
    "so do layers with inplace=True"
)


def _spread(total: int, size: int) -> torch.Tensor:
    """Places of ``size`` events from all over; some more than once if there are fewer."""
    return (torch.arange(size) * max(total // max(size, 1), 1)) % total


def _step(network: torch.nn.Module) -> None:
    """The first step of Adam, without the second that importing torch's optimisers takes."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.sub_(STEP * parameter.grad.sign())
