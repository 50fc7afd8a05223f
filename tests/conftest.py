"""Four virtual devices for the pmap tests; compiled functions kept between runs, and compiled with fewer passes:
compiling is most of what the suite does."""

import importlib.metadata
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=4 --xla_llvm_disable_expensive_passes=true"
    + " --xla_backend_optimization_level=1"
)
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    # the older way to emit kernels, which compiles in six tenths of the time; newer ones know no other, nor the flag
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# what waits for a step on four devices can take all places in the queue of one that has not begun it
os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "0")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
