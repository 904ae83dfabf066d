"""GPUs to plan for, as their makers describe them."""

from dataclasses import dataclass

from aim.engine.machine.hardware import Gpu, Precision
from aim.ground.errors import UserError

# GPU memory that tensors can't have: CUDA's context and libraries, and gaps between the allocator's blocks.
CONTEXT_GIB, GAPS = 0.75, 0.04


@dataclass(frozen=True)
class Sheet:
    """A data sheet's numbers. Rates are dense, without sparsity, and of products that are summed in float32."""

    memory_gib: float  # without the driver's share
    bf16_tflops: float | None  # None: no instructions for it
    fp32_tflops: float  # without TF32, as torch computes by default
    bandwidth_gb: float  # of the memory, 10^9 bytes a second
    fp8_tflops: float | None = None  # None: no instructions for it

    @property
    def usable_bytes(self) -> float:
        """The bytes for a run's tensors."""
        return (self.memory_gib - CONTEXT_GIB) * (1 - GAPS) * 2**30

    def precision(self, asked: Precision, gpu: str) -> Precision:
        """The precision `asked` on this GPU. Raises UserError if it has no instructions for it."""
        if asked == "bf16" and self.bf16_tflops is None:
            raise UserError(f"precision=bf16, but gpu={gpu} only emulates it; use precision=fp32 or auto")
        if asked == "fp8" and self.fp8_tflops is None:
            having = ", ".join(name for name, sheet in GPUS.items() if sheet.fp8_tflops is not None)
            raise UserError(f"precision=fp8, but gpu={gpu} has no products in it; {having} have; use precision=auto")
        return ("fp32" if self.bf16_tflops is None else "bf16") if asked == "auto" else asked

    def tflops(self, precision: Precision) -> float:
        """The rate of matrix products but for those in fp8."""
        return self.bf16_tflops if precision != "fp32" and self.bf16_tflops else self.fp32_tflops


# NVIDIA's data sheets of the A100 80GB SXM, H100 SXM, H200 SXM, HGX B200, L40S and T4, and its Ada architecture's white
# paper for the RTX 4090. Where a sheet gives the rate with sparsity, this is half of it.
GPUS: dict[Gpu, Sheet] = {
    "a100": Sheet(memory_gib=79.1, bf16_tflops=312, fp32_tflops=19.5, bandwidth_gb=2039),
    "h100": Sheet(memory_gib=79.1, bf16_tflops=989, fp32_tflops=67, bandwidth_gb=3350, fp8_tflops=1979),
    "h200": Sheet(memory_gib=139.8, bf16_tflops=989, fp32_tflops=67, bandwidth_gb=4800, fp8_tflops=1979),
    "b200": Sheet(memory_gib=178, bf16_tflops=2250, fp32_tflops=75, bandwidth_gb=7700, fp8_tflops=4500),
    "l40s": Sheet(memory_gib=44.4, bf16_tflops=362, fp32_tflops=91.6, bandwidth_gb=864, fp8_tflops=733),
    "rtx4090": Sheet(memory_gib=23.5, bf16_tflops=165, fp32_tflops=82.6, bandwidth_gb=1008, fp8_tflops=330),
    "t4": Sheet(memory_gib=14.6, bf16_tflops=None, fp32_tflops=8.1, bandwidth_gb=320),
}
