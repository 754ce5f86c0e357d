"""One training engine over plain PyTorch, DDP and DeepSpeed ZeRO, with the same meaning of every setting."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object
from jaxtyping import Float, Float64
from torch import Tensor, nn

from cami2v.batch import ClipBatch, StepOutput, TrainingBatch
from cami2v.compilation import CompileMode, asked_for, check_compilation, check_graphs, compile_denoiser, uses_graphs
from cami2v.training import environment
from cami2v.training.accelerator import build_accelerator
from cami2v.training.environment import EngineKind
from cami2v.training.gradient_norms import squared_norms
from cami2v.training.optimizer import OptimizerSettings, build_optimizer
from cami2v.training.prefetch import Copy, SideStream
from cami2v.training.trained_state import PartitionedState, ReplicatedState, ShardedState, TrainedState

Item = TypeVar("Item")

Look = Callable[[Any, Any], Tensor]
"""Computes a tensor from the model (unwrapped) and a batch."""

Judge = Callable[[StepOutput], bool]
"""Tells whether a step must not change the weights."""


class Precision(StrEnum):
    """Number format of the forward and backward pass; master weights and optimizer states are always fp32."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """Dtype of autocast regions; None where there are none."""
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Settings of conf/engine."""

    kind: EngineKind
    precision: Precision
    allow_tf32: bool
    """Let CUDA round fp32 matrix products and convolutions to TF32."""
    deterministic: bool
    """Ask PyTorch for deterministic CUDA kernels; slower. CPU runs are bit-reproducible either way."""
    timeout_minutes: int
    """How long a collective may wait for a slow process before the run fails."""
    compile: str | None
    """Backend of `torch.compile` for the denoiser; None: not compiled."""
    compile_mode: CompileMode | None
    """Mode of inductor; `reduce-overhead` and `max-autotune` replay CUDA graphs."""
    channels_last: bool
    """Keep the channels of images and their convolutions' weights next to each other in memory."""
    prefetch: bool
    """On a GPU: fetch the next batch and copy it there while a step runs, in a thread and on a stream of their own."""

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        if self.timeout_minutes < 1:
            raise ValueError(f"engine.timeout_minutes: got {self.timeout_minutes}, expected at least 1")
        check_compilation(self.compile, self.compile_mode, prefix="engine.")
        if self.compile is not None and self.kind.zero_stage == 3:
            raise ValueError(
                f"engine.compile: got {self.compile}, but engine={self.kind.value} gathers weights inside the "
                "denoiser, where a compiled one has no room for it; use engine=zero2 or engine.compile=null"
            )
        if self.uses_graphs and self.kind.zero_stage:
            raise ValueError(
                f"engine.{asked_for(self.compile, self.compile_mode)}, but DeepSpeed (engine={self.kind.value}) takes "
                "gradients out of memory that CUDA graphs write again; use engine=ddp, or engine.compile=inductor with "
                "engine.compile_mode=null"
            )
        if self.channels_last and self.kind.zero_stage:
            raise ValueError(
                f"engine.channels_last: got true, but DeepSpeed (engine={self.kind.value}) lays weights out anew; use "
                "engine=ddp or engine.channels_last=false"
            )

    @property
    def uses_graphs(self) -> bool:
        """Whether the denoiser becomes CUDA graphs."""
        return uses_graphs(self.compile, self.compile_mode)

    def check_machine(self) -> None:
        """Raise ValueError for what this machine cannot do."""
        check_graphs(self.compile, self.compile_mode, on_gpu=torch.cuda.is_available(), prefix="engine.")
        if self.precision is Precision.FP16 and not torch.cuda.is_available():
            raise ValueError("engine.precision: got fp16, which needs a GPU and none is visible; use fp32 or bf16")


def prepare_model(model: nn.Module, denoiser: nn.Module, settings: EngineSettings) -> None:
    """Lay out and compile a model as the settings say, in place: names in checkpoints stay."""
    if settings.channels_last:
        for convolution in [module for module in model.modules() if isinstance(module, nn.Conv2d)]:
            convolution.to(memory_format=torch.channels_last)
    if settings.compile is not None:
        compile_denoiser(denoiser, settings.compile, settings.compile_mode)


class TrainingStep(nn.Module):
    """What DDP and DeepSpeed wrap around the model: autocast inside, plain tensors out.

    DeepSpeed looks for the outputs that start a backward pass in tensors, tuples, lists and dicts only: with a
    dataclass it would skip its gradient bookkeeping without a word. It also switches off any autocast around it.
    """

    def __init__(self, model: nn.Module, autocast_dtype: torch.dtype | None) -> None:
        super().__init__()
        self.model = model
        self.autocast_dtype = autocast_dtype

    def forward(self, batch: TrainingBatch, look: Look | None = None) -> tuple[Tensor, ...]:
        """Return loss, loss per sample and timesteps; with `look`, what it makes of model and batch instead.

        Sampling goes through here as well: DeepSpeed gathers what ZeRO-3 has spread only inside a forward call.
        """
        with autocast(self.autocast_dtype, batch.seeds.device):
            if look is not None:
                return (look(self.model, batch),)
            # Not self.model(batch): ZeRO-3's module hooks cannot take a slotted dataclass as a module's output. They
            # gather the parameters a module owns itself; the model owns none outside its parts.
            output: StepOutput = self.model.forward(batch)
        return output.loss, output.loss_per_sample, output.timesteps


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[Any]:
    """Enter an autocast region, or none."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


class Engine:
    """A model under training, spread over processes as `settings.kind` says.

    Call `forward_backward` `accumulation_steps` times between `start_step` and `finish_step`. Methods marked
    collective must be called by every process.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        settings: EngineSettings,
        optimizer: OptimizerSettings,
        accumulation_steps: int,
        micro_batch_size: int,
        gradient_clip_norm: float | None,
    ) -> None:
        self.settings = settings
        self.gradient_clip_norm = gradient_clip_norm
        settings.check_machine()
        environment.check_environment(
            settings.kind,
            settings.precision.value,
            gradient_clip_norm,
            accumulation_steps=accumulation_steps,
            processes=environment.world_size(),
        )
        environment.claim_environment(settings.kind)
        torch.backends.cuda.matmul.allow_tf32 = settings.allow_tf32
        torch.backends.cudnn.allow_tf32 = settings.allow_tf32
        torch.use_deterministic_algorithms(settings.deterministic, warn_only=True)
        self.accelerator = build_accelerator(
            kind=settings.kind, precision=settings.precision.value, timeout_minutes=settings.timeout_minutes,
            accumulation_steps=accumulation_steps, micro_batch_size=micro_batch_size,
            gradient_clip_norm=gradient_clip_norm,
        )  # fmt: skip
        self.model = model
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        if settings.kind.zero_stage:
            _widen_scalars(model)
        step = TrainingStep(model, settings.precision.autocast_dtype)
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with warnings.catch_warnings():
            # PyTorch 2.15 renames the argument, Accelerate 1.15 does not know the new name yet.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
            self._module, self._optimizer = self.accelerator.prepare(step, build_optimizer(optimizer, trainable))
        # A CUDA graph's gradients lie where its next replay writes: PyTorch takes the first ones as they are, and a
        # second micro-batch would be added to itself. Into memory that is there already, they are added.
        self._keeps_gradients = settings.uses_graphs and accumulation_steps > 1
        if self._keeps_gradients:
            for parameter in trainable:
                parameter.grad = torch.zeros_like(parameter)
        self._skipped = False
        self.watch_gradients = False
        """Whether steps from now on leave sums of squared gradients for `take_gradient_squares`."""
        self._gradient_squares: dict[str, float] = {}
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.trained_state = self._trained_state()

    @property
    def rank(self) -> int:
        """This process's number."""
        return int(self.accelerator.process_index)

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files that exist once."""
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.accelerator.device

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained, over all processes."""
        return sum(self._shapes[name].numel() for name in self.trainable)

    @property
    def optimizer_bytes(self) -> int:
        """How much memory this process's optimizer state takes; none before the first update."""
        optimizer = self._module.optimizer.optimizer if self.settings.kind.zero_stage else self._optimizer.optimizer
        kept = (value for state in optimizer.state.values() for value in state.values())
        return sum(value.nbytes for value in kept if isinstance(value, Tensor))

    def barrier(self) -> None:
        """Wait for every process (collective)."""
        self.accelerator.wait_for_everyone()

    def start_step(self, learning_rate: float) -> None:
        """Begin an optimizer step. DeepSpeed updates inside the last backward, so its rate must be set by now."""
        self._module.train()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate

    def copies_ahead(self) -> Copy | None:
        """Return what brings batches to this process's GPU ahead of their step; None where there is no need."""
        return SideStream(self.device) if self.settings.prefetch and self.device.type == "cuda" else None

    def forward_backward(
        self, batch: TrainingBatch, is_bad: Judge | None = None, *, on_device: TrainingBatch | None = None
    ) -> StepOutput:
        """Add one micro-batch's gradient, divided by the number of micro-batches of a step (collective).

        `is_bad` sees the output first. Where it is true the gradient becomes NaN, and no engine makes that update.
        `on_device` is the batch where it has been brought to the device already.
        """
        # Dropout then belongs to the samples, like every other draw: neither the number of processes nor a restart
        # changes its masks.
        torch.manual_seed(int(batch.seeds[0]) & (2**63 - 1))
        with self.accelerator.accumulate(self._module):
            brought = batch if on_device is None else on_device
            self._new_iteration()
            loss, loss_per_sample, timesteps = self._module(brought.to(self.device, non_blocking=True))
            output = StepOutput(
                loss=loss.detach().float(), loss_per_sample=loss_per_sample.detach().float(), timesteps=timesteps
            )
            # DeepSpeed updates inside the last backward pass, so what must not be learned has to be known before it.
            self._backward(loss * math.nan if is_bad is not None and is_bad(output) else loss)
        return output

    def finish_step(self) -> float:
        """Clip, update and return the gradient norm before clipping (collective).

        Weights and optimizer stay as they are where it is not finite, under every engine.
        """
        assert self.accelerator.sync_gradients, "finish_step before all micro-batches of the step"
        if self.watch_gradients and not self.settings.kind.zero_stage:
            self._gradient_squares = squared_norms(self.trainable, zero=False)
        limit = self.gradient_clip_norm if self.gradient_clip_norm is not None else float("inf")
        norm = self.accelerator.clip_grad_norm_(list(self.trainable.values()), limit)
        norm = math.nan if norm is None else float(norm)
        # Under fp16 the loss scaler must see the overflow, and skips by itself; so does DeepSpeed.
        if math.isfinite(norm) or self.settings.kind.zero_stage or self.settings.precision is Precision.FP16:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=not self._keeps_gradients)
        self._skipped = not math.isfinite(norm) or bool(self.accelerator.optimizer_step_was_skipped)
        return norm

    def take_gradient_squares(self) -> dict[str, float]:
        """Return the sums of squared gradients by module of the last step watched, once; else nothing.

        Under fp16 they carry the square of the loss scale.
        """
        squares, self._gradient_squares = self._gradient_squares, {}
        return squares

    def evaluate(self, batch: ClipBatch) -> StepOutput:
        """Compute the loss of a batch without gradient, in evaluation mode (collective)."""
        self._module.eval()
        self._new_iteration()
        with torch.no_grad():
            loss, loss_per_sample, timesteps = self._module(batch.to(self.device))
        return StepOutput(loss=loss.float(), loss_per_sample=loss_per_sample.float(), timesteps=timesteps)

    def generate(self, batch: ClipBatch, sampler: Any) -> Float[Tensor, "batch 3 frames height width"]:
        """Sample videos in evaluation mode (collective: under ZeRO-3 every process holds a share of the weights)."""
        return self.inspect(batch, lambda model, clips: model.generate(clips, sampler)).float()

    def inspect(self, batch: ClipBatch, look: Look) -> Tensor:
        """Return what `look` makes of model and batch, in evaluation mode, on the CPU (collective, as `generate`)."""
        self._module.eval()
        with torch.no_grad():
            (seen,) = self._module(batch.to(self.device), look)
        return seen.cpu()

    def gather_rows(self, row: Float64[Tensor, " columns"]) -> Float64[Tensor, "processes columns"]:
        """Stack one row per process, on the CPU (collective)."""
        gathered: Tensor = self.accelerator.gather(row.to(self.device)[None])
        return gathered.cpu()

    def gather_objects(self, objects: list[Item]) -> list[Item]:
        """Join the lists of all processes, in the order of processes (collective)."""
        joined: list[Item] = gather_object(objects)
        return joined

    @property
    def loss_scaler(self) -> Any:
        """The object that scales the loss under fp16: PyTorch's or DeepSpeed's; None where nothing is scaled."""
        if self.settings.precision is not Precision.FP16:
            return None
        return self._module.optimizer.loss_scaler if self.settings.kind.zero_stage else self.accelerator.scaler

    def step_was_skipped(self) -> bool:
        """Tell whether the last update was not made: the gradient was not finite (under fp16 that is usual)."""
        return self._skipped

    def close(self) -> None:
        """Leave the process group."""
        self.accelerator.end_training()

    def _new_iteration(self) -> None:
        """Tell CUDA graphs that what they returned before has been used."""
        if self.settings.uses_graphs:
            torch.compiler.cudagraph_mark_step_begin()

    def _backward(self, loss: Tensor) -> None:
        """Run the backward pass; under DeepSpeed the last one of a step also updates the weights."""
        if not (self.watch_gradients and self.settings.kind.zero_stage and self.accelerator.sync_gradients):
            self.accelerator.backward(loss)
            return
        # What Accelerate's call does, with a look in between.
        deepspeed = self.accelerator.deepspeed_engine_wrapped.engine
        deepspeed.set_gradient_accumulation_boundary(is_boundary=True)
        deepspeed.backward(loss)
        self._gradient_squares = squared_norms(self.trainable, zero=True)
        deepspeed.step()

    def _trained_state(self) -> TrainedState:
        if not self.settings.kind.zero_stage:
            return ReplicatedState(trainable=self.trainable, shapes=self._shapes, optimizer=self._optimizer.optimizer)
        spread = ShardedState if self.settings.kind.zero_stage == 3 else PartitionedState
        return spread(trainable=self.trainable, shapes=self._shapes, optimizer=self._module.optimizer)


def _widen_scalars(model: nn.Module) -> None:
    """Give scalar parameters an axis: DeepSpeed 0.19 fails to broadcast them without one. Arithmetic is the same."""
    for parameter in model.parameters():
        if parameter.ndim == 0:
            parameter.data = parameter.data.reshape(1)
