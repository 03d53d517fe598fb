# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
# The server of PyPI needs a Python of the system: others lack symbols that it asks for.
TRITON_PYTHON ?= /usr/bin/python3.11
TRITON := build/triton
CLIENTS_PYTHON ?= /usr/bin/python3.11
CLIENTS := build/clients
READERS := build/dicom-readers
# Tools that judge what is deployed: Helm's engine (0.25 GB), schemas of Kubernetes (0.1 GB) and of compose.
DEPLOY := build/deploy
TARGET ?= serve
# for CUDA: IMAGE_OPTIONS="--build-arg TORCH_INDEX="
IMAGE_OPTIONS ?=
MINUTES ?= 2

MODEL ?= hippocampus
STATE ?= runs/serve

.PHONY: demo serve test test-slow test-serve test-browser test-pacs test-pretended-gpu test-dicom test-triton test-clients test-deploy image lint types bench docs clean

demo: $(VENV)/installed  ## generate phantoms, train, predict, evaluate, report
	$(BIN)/trivox demo --out $(OUT) --minutes $(MINUTES)

serve: $(VENV)/installed-serve  ## a ready model behind an API at 127.0.0.1:8470, until Ctrl-C
	$(BIN)/trivox serve $(MODEL) --state $(STATE)

test: $(VENV)/installed-dev  ## the default tests with coverage
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=85

test-slow: $(VENV)/installed-dev  ## what takes minutes
	$(BIN)/python -m pytest -m slow

test-serve: $(VENV)/installed-dev  ## a server that is killed, filled up and kept busy, for a quarter of an hour
	$(BIN)/python -m pytest -q -m serve tests/service

test-browser: $(VENV)/installed-dev  ## pages in a headless Chromium, on real scans
	$(BIN)/python -m pytest -m browser tests/exporting/web tests/service/serve

test-pacs: $(VENV)/installed-dev  ## with a real archive, Debian's Orthanc on loopback
	scripts/orthanc
	$(BIN)/python -m pytest -q -m pacs tests/service

test-pretended-gpu: $(VENV)/installed-dev  ## on a CUDA device that is pretended on the CPU
	PYTHONPATH=tests $(BIN)/python -m pytest -q -p pretended_gpu.plugin tests/pretended_gpu

test-dicom: $(VENV)/installed-dev $(READERS)/installed  ## results read back by cornerstone and dcmqi
	TRIVOX_DICOM_READERS=$(READERS) $(BIN)/python -m pytest -q -m dicom tests/results

test-triton: $(VENV)/installed-dev $(TRITON)/installed  ## with a real Triton server
	TRIVOX_TRITON=$(TRITON) $(BIN)/python -m pytest -q -m triton tests/exporting

test-clients: $(VENV)/installed-dev $(CLIENTS)/installed  ## with the client of MONAI Label from PyPI
	TRIVOX_CLIENTS=$(CLIENTS) $(BIN)/python -m pytest -q -m clients tests/service

test-deploy: $(VENV)/installed-dev $(DEPLOY)/installed  ## the Helm chart in Helm's own engine, manifests by their schemas
	TRIVOX_DEPLOY_TOOLS=$(DEPLOY)/bin/python $(BIN)/python -m pytest -q tests/deploy

image:  ## the image that serves models, where Docker is: make image TARGET=predict
	docker build -f deploy/Dockerfile --target $(TARGET) --tag trivox-$(TARGET) \
	  --build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/trivox/version.py)" \
	  --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" $(IMAGE_OPTIONS) .

lint: $(VENV)/installed-dev  ## style and the order of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed-dev  ## mypy --strict
	$(BIN)/mypy

bench:  ## side-by-side measurements against nnU-Net and MONAI, in a venv of their own
	benchmarks/setup.sh
	benchmarks/run.sh

docs: $(VENV)/installed-dev  ## build the documentation into site/
	$(BIN)/zensical build

clean:  ## remove what make made
	rm -rf $(VENV) site runs $(TRITON) $(CLIENTS) $(READERS) $(DEPLOY) .pytest_cache .ruff_cache .mypy_cache

$(VENV)/installed: pyproject.toml constraints.txt
	scripts/install
	@touch $@

$(VENV)/installed-serve: pyproject.toml constraints.txt
	scripts/install openvino,dicom,serve
	@touch $@ $(VENV)/installed

$(VENV)/installed-dev: pyproject.toml constraints.txt
	scripts/install dev
	@touch $@ $(VENV)/installed $(VENV)/installed-serve

$(READERS)/installed:
	mkdir -p $(READERS)
	cp tests/dicom_readers/* $(READERS)
	cd $(READERS) && npm install --no-audit --no-fund --silent
	cd $(READERS) && npx esbuild read_segmentations.mjs --bundle --platform=node --format=cjs --outfile=read_segmentations.cjs --log-level=error
	$(PYTHON) -m venv $(READERS)/venv
	$(READERS)/venv/bin/pip install --quiet dcmqi==1.5.7
	@touch $@

$(CLIENTS)/installed:  # its client needs `requests` and the module `cgi` of Python 3.11
	$(CLIENTS_PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install --quiet --no-deps "monailabel==0.8.5"
	$(CLIENTS)/bin/pip install --quiet requests
	@touch $@

$(TRITON)/installed:
	$(TRITON_PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/pip install --quiet "nvidia-pytriton==0.7.0" "numpy<2" scipy nibabel onnxruntime openvino
	@touch $@

$(DEPLOY)/installed:
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/pip install --quiet "helm-python-sdk==0.2.2" "kubernetes-validate==1.37.0" "compose-spec==0.2.1" pyyaml
	@touch $@
