"""The optional C core; everything else stands in setup.cfg."""

from pathlib import Path

from setuptools import Extension, setup

CORE = Path("compressor") / "coding" / "core"

# A shared library that is loaded through ctypes: it needs a C compiler, and no Python headers.
# Where there is none the installation goes on, and NumPy does its work.
setup(
    ext_modules=[
        Extension(
            "compressor.coding._core",
            sources=sorted(path.as_posix() for path in CORE.glob("*.c")),
            depends=sorted(path.as_posix() for path in CORE.glob("*.h")),
            extra_compile_args=["-std=c11", "-O3"],
            optional=True,
        )
    ]
)
