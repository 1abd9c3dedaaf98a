"""Errors of torch that a user can act on: one sentence, and the exit code of what is at fault."""

import pytest
import torch

from bench.errors import BenchError, MachineError, OutOfMemory, explained

FULL = "out of memory; choose a smaller --size, trunk or batch size."


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)
def test_memory_that_ran_out_is_told_from_a_gpu_that_failed(error: Exception) -> None:
    told = explained(error)
    assert isinstance(told, OutOfMemory) and told.exit_code == 4 and str(told) == FULL


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "GET was unable to find an engine to execute this computation",
        "FIND was unable to find an engine to execute this computation",
        "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable",
        "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver",
        "Unable to find a valid cuDNN algorithm to run convolution",
    ],
)
def test_a_gpu_that_failed_is_an_error_of_the_machine(said: str) -> None:
    told = explained(RuntimeError(said))
    assert type(told) is MachineError and told.exit_code == 4
    first = said.partition("\n")[0]
    assert f"the GPU failed ({first})" in str(told) and "bench doctor" in str(told) and "\n" not in str(told)


def test_a_gpu_that_fails_when_it_starts_is_an_error_of_the_machine() -> None:
    told = explained(torch.cuda.DeferredCudaCallError("CUDA call failed lazily at initialization with error: no driver"))
    assert type(told) is MachineError and "the GPU failed" in str(told)


def test_data_workers_that_send_nothing_are_an_error_of_the_machine() -> None:
    told = explained(RuntimeError("DataLoader timed out after 60 seconds"))
    assert type(told) is MachineError
    assert str(told) == (
        "the data workers sent no images in time (DataLoader timed out after 60 seconds); run again, or with --workers 0."
    )


@pytest.mark.parametrize(
    "said",
    [
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
        "Expected a 'cuda' device type for generator but found 'cpu'",
        "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, use the 'spawn' start method",
        "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    ],
)
def test_a_mistake_in_a_tasks_calls_is_no_fault_of_the_gpu(said: str) -> None:
    told = explained(RuntimeError(said))
    assert type(told) is BenchError and "unexpected RuntimeError" in str(told)
