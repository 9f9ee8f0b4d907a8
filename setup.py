"""Packaging: the only place that declares dependencies. `configs/constraints.txt` pins them."""

from setuptools import find_packages, setup

setup(
    name="callpress",
    version="0.1.0",
    description="Presses raw call recordings into an MKV per participant, an MP3 per call and "
    "Parquet catalogs",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(
        include=["configs", "pipelines", "pipelines.*", "transforms", "transforms.*"]
    ),
    package_data={"configs": ["*.toml", "*.flags", "worker-requirements.txt"]},
    install_requires=[
        "apache-beam[gcp]>=2.70,<2.80",
        "av>=16,<20",
        "cryptography>=44,<52",
        "fastcrc>=0.3,<1",
        "google-cloud-pubsub>=2.20,<3",
        "google-cloud-secret-manager>=2.20,<3",
        "google-cloud-storage>=3,<4",
        "google-crc32c>=1.5,<2",
        "lameenc>=1.7,<2",
        "numpy>=2,<2.5",
        "obstore>=0.12.1,<0.13",
        "pyarrow>=18,<26",
        "pydantic>=2.7,<3",
        "rich>=13,<16",
        "shtab>=1.13,<2",
        "soxr>=0.5,<2",
        "tenacity>=8.2,<10",
        "urllib3>=2.2,<3",
    ],
    extras_require={
        # Profiles of AWS's files of configuration, single sign-on and the like.
        "s3": ["boto3>=1.35,<2"],
        # The vendor's own client, for `--manifest stream:...`.
        "stream": ["getstream>=4,<8"],
        "dev": [
            "duckdb>=1.1,<3",
            "gcp-storage-emulator>=2024.8,<2027",
            "hypothesis>=6.100,<7",
            "jsonschema>=4.23,<5",
            "mutagen>=1.47,<2",
            "mypy>=1.13,<3",
            "pesq>=0.0.4,<1",
            "pytest>=8,<10",
            "pytest-timeout>=2.3,<3",
            "pytest-xdist>=3.5,<4",
            "ruff>=0.8,<1",
            "setuptools>=77,<85",
        ],
        # Wheels for Linux on x86-64 only: not in `dev`, the suite drives the same targets with
        # hypothesis.
        "fuzz": ["atheris>=3,<4"],
    },
    entry_points={"console_scripts": ["callpress = pipelines.cli:main"]},
)
