"""Packaging metadata.

Tool configuration stands in pyproject.toml, the tested versions in constraints.txt.
"""

import glob
import platform
import runpy
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

here = Path(__file__).resolve().parent
urls = runpy.run_path(str(here / "v1tlearn" / "_urls.py"))  # importing the package imports torch

# What one function each needs, which names its extra where it is missing.
attribution = ["captum>=0.9"]
backbones = ["transformers>=5.4"]
dask = ["dask[distributed]>=2026.1.1"]  # workers on several machines; 2026.1.0 does not install
fetch = ["pooch>=1.8", "requests>=2.31", "urllib3>=2.2"]
interop = ["pyyaml>=6"]
nwb = ["pynwb>=4.2"]  # the format of DANDI, which nothing else reads in all its versions
parquet = ["pyarrow>=20"]  # without which pandas writes none
plot = ["matplotlib>=3.8.4"]
search = ["optuna>=5"]
tensorboard = ["tensorboard>=2.20"]
zips = ["deflate>=0.9"]  # of which the standard library reads the same, slower
test = [
    "hypothesis>=6.100",
    "import-linter>=2.3",
    "ipykernel>=7.4",  # notebooks whose kernels are interrupted
    "jupyter_client>=8.10",
    "mypy>=2.4",
    "numpydoc>=1.8",
    "pytest>=8.2",
    "pytest-timeout>=2.3.1",
    "pytest-xdist>=3.6.1",
    "setuptools>=77.0.3",  # builds what tests look into
    "ruff>=0.17",
    "tslearn>=0.10",  # an oracle; the gradients of earlier ones are wrong
    *attribution,
    *backbones,
    *dask,
    *fetch,
    *interop,
    *nwb,
    *parquet,
    *plot,
    *search,
    *tensorboard,
    *zips,
]
docs = [
    "numpydoc>=1.8",
    "myst-parser>=4",
    "plenoptic>=2.1.1",  # an example hands over to it, for eigendistortions
    "pydata-sphinx-theme>=0.16",
    "rsatoolbox>=0.3.2",  # and one to this, for representational similarity
    "sphinx>=8",
    "sphinx-gallery>=0.18",
    *backbones,
    *plot,
    *search,
]

# Where there is no compiler the package installs all the same, and attention on a CPU is slower.
limited_api = not sysconfig.get_config_var("Py_GIL_DISABLED")  # such builds do not have it


def extension(name, *flags):
    """An extension of all sources of a name."""
    return Extension(
        f"v1tlearn.nn.fast.{name}",
        sources=sorted(glob.glob(f"v1tlearn/nn/fast/{name}*.c", root_dir=here)),
        depends=sorted(glob.glob(f"v1tlearn/nn/fast/{name}*.h", root_dir=here)),
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if limited_api else [],
        # No text for debuggers, which Python's own flags ask for, and which tells local paths.
        extra_compile_args=["-O3", "-g0", "-std=c11", "-ffp-contract=off", "-pthread", *flags],
        extra_link_args=["-pthread", "-lm"],
        py_limited_api=limited_api,
        optional=True,
    )


kernels = []
if sys.platform in ("linux", "darwin"):
    kernels.append(extension("_kernels", "-fvisibility=hidden"))
if sys.platform == "linux" and platform.machine() == "x86_64":
    kernels.append(extension("_warping", "-Wno-psabi"))


class BuildKernels(build_ext):
    """With OpenMP, whose threads are those of torch, where the compiler has it.

    Not on macOS, where a second copy of its library beside that of torch ends the process. Without
    it, the kernels start threads of their own.
    """

    def build_extension(self, ext):
        """Try both ways; the error of the second is shown, and tolerated."""
        if sys.platform == "linux":
            plain = (ext.extra_compile_args, ext.extra_link_args)
            ext.extra_compile_args, ext.extra_link_args = ([*args, "-fopenmp"] for args in plain)
            try:
                return super().build_extension(ext)
            except (CompileError, LinkError):
                ext.extra_compile_args, ext.extra_link_args = plain
        return super().build_extension(ext)


setup(
    name="v1tlearn",
    version="0.1.0",
    description="Models of visual cortex responses to images, as scikit-learn estimators",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="v1tlearn developers",
    url=urls["REPOSITORY_URL"],
    project_urls={
        "Documentation": urls["DOCS_URL"],
        "Source": urls["REPOSITORY_URL"],
        "Issues": urls["REPOSITORY_URL"] + "/issues",
        "Changelog": urls["DOCS_URL"] + "/changelog.html",
    },
    license_expression="BSD-3-Clause",
    license_files=["LICENSE"],
    keywords="neuroscience visual cortex system identification vision transformer scikit-learn",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering",
        "Typing :: Typed",
    ],
    ext_modules=kernels,
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if kernels and limited_api else {},
    packages=find_packages(include=["v1tlearn", "v1tlearn.*"]),
    package_data={
        "v1tlearn": ["py.typed"],
        "v1tlearn.inspection.reports": ["page.css", "page.html.jinja"],
    },
    entry_points={"console_scripts": ["v1tlearn = v1tlearn.cli.main:main"]},
    python_requires=">=3.11",
    install_requires=[
        "jinja2>=3.1",
        "joblib>=1.4",
        "markupsafe>=2",
        "netCDF4>=1.7.5",
        "numpy>=2.0",
        "pandas>=2.2.2",
        "safetensors>=0.6.2",
        "scikit-learn>=1.8",
        "scipy>=1.14",
        "torch>=2.10",
        "tqdm>=4.69",
        "xarray>=2026.4",
    ],
    extras_require={
        "attribution": attribution,
        "backbones": backbones,
        "dask": dask,
        "docs": docs,
        "fetch": fetch,
        "interop": interop,
        "nwb": nwb,
        "parquet": parquet,
        "plot": plot,
        "search": search,
        "tensorboard": tensorboard,
        "test": test,
        "zips": zips,
    },
)
