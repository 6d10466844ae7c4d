"""Settings under which every test runs, read when JAX is imported: several CPU devices, quick compilation, a cache.

Tests run on the CPU, also on a machine with a GPU, unless JAX_PLATFORMS asks for something else.
"""

import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
# Tests compile far more than they compute: without the compiler's last optimisations they take half the time, and with
# the older of its two ways to make code of fused loops, which newer versions no longer have, a third.
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
        # One piece of code per program, and not one per thread: a sixth less, and the other cores have tests to run.
        os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"
# Threads of NumPy's matrix products would take cores from the other workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# What was compiled once is read the next time. JAX_ENABLE_COMPILATION_CACHE=false compiles everything anew.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.02")
# Programs that are called inside of a test leave the memory of this process as it is.
os.environ.setdefault("JAXUP_KEEP_HEAP", "0")
