"""A stand-in for a GPU, with which the program's GPU code is tested on a machine without one.

Tensors lie in the processor's memory and say that they lie on a GPU. A mode of torch (`tests.standin.mode`) looks at every call
of torch and raises what CUDA would raise; functions of `torch.cuda` answer as if there were a GPU (`tests.standin.cuda`). Tests
ask for it by the fixture `gpu`, and `--device cuda` then takes the stand-in.

It finds:

- a tensor on the processor that meets one on the GPU, and tensors of two GPUs that meet;
- a generator of another device than the tensor that it fills;
- an operation that waits for the GPU (`item`, a boolean index, a blocking copy, ...), where `torch.cuda.set_sync_debug_mode`
  forbids it, and in `waits` everywhere;
- moments of a fused optimizer that lie in memory otherwise than their parameters;
- a GPU that is used though another was asked for (`opened`), and a data worker that touches a GPU.

It cannot find what only a card shows: the limits of kernels, what CUDA's autocast computes in which precision (the processor's
lists differ), how much memory is held, and speed. Nor does it see what happens inside a function of torch that is written in
Python, in a backward pass, or in a compiled network. Its generators give the numbers of the processor's. `Module.to` replaces
parameters by new ones, where CUDA keeps the objects. `make gpu` tries a real card.
"""

from tests.standin.cuda import standing_in
from tests.standin.mode import OnGpu, StandIn

__all__ = ["OnGpu", "StandIn", "standing_in"]
