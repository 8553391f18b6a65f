# Every target sets up .venv by itself when it is missing. STUDY and CULTURES choose what runs:
#   make report STUDY=smoke          make report CULTURES="korean german"
# A culture of your own, from an official WVS-7 file:
#   make culture NAME=greek COUNTRIES=GRC LANGUAGE=Greek WVS=../WVS_Cross-National_Wave_7.csv
# A culture's model, once its study has run (OPTIONS are those of culturellm_utils/sharing.py):
#   make serve CULTURE=korean        make ask CULTURE=korean QUESTION="Should people work less?"
#   make push CULTURE=korean TO=user/name OPTIONS="--merged --public"
PYTHON ?= python3
STUDY ?= laptop
CULTURES ?=
VARIANT ?= main
CULTURE ?= korean
export QUESTION TO NAME COUNTRIES LANGUAGE WVS
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# A killed run's lock goes first; that of a run that is still going on stays, and this one refuses.
RUN = python -m culturellm_utils.unlocking && snakemake --cores $(CORES) --rerun-incomplete --quiet reason host --config study=$(1) cultures="$(CULTURES)"

SHARE = python -m culturellm_utils.sharing $(1) --study $(STUDY) --variant $(VARIANT) --culture $(CULTURE)

.PHONY: report smoke test bench lint lab record culture export push serve ask clean
.DEFAULT_GOAL := report

report: $(VENV)/ready
	$(call RUN,$(STUDY))
	@echo "The report is at outputs/$(STUDY)/report/index.html"

smoke: $(VENV)/ready
	$(call RUN,smoke)
	@echo "The report is at outputs/smoke/report/index.html"

test: $(VENV)/ready lint
	pytest -n 2 --dist loadfile

# Against the plain way and the machine's limits; BENCH="survey filter" chooses. Wants the machine for itself.
bench: $(VENV)/ready
	PYTHONPATH=tests python -m benchmarks $(BENCH)

lint: $(VENV)/ready
	ruff check .
	nbstripout --verify --extra-keys "metadata.papermill cell.metadata.papermill metadata.language_info" notebooks/*.ipynb

lab: $(VENV)/ready
	jupyter lab --notebook-dir=.

# The compact record of the default study that the repository keeps.
record: $(VENV)/ready
	$(call RUN,laptop)
	rm -rf outputs/laptop/record
	mkdir -p outputs/laptop/record
	cp -r outputs/laptop/main/common/figures outputs/laptop/main/common/tables outputs/laptop/record/

# Writes params/$NAME.yaml; OPTIONS are those of culturellm_utils/cultures.py.
culture: $(VENV)/ready
	@python -m culturellm_utils.cultures --name "$$NAME" --countries "$$COUNTRIES" --language "$$LANGUAGE" \
		--wvs "$$WVS" $(OPTIONS)

# Adapter and base model merged into outputs/<study>/<variant>/<culture>/merged/.
export: $(VENV)/ready
	$(call SHARE,export)

# The adapter with its card to the model hub, privately; the token comes from HF_TOKEN.
push: $(VENV)/ready
	@$(call SHARE,push) --to "$$TO" $(OPTIONS)

# The culture's model and its base model, until interrupted; ask them from another terminal.
serve: $(VENV)/ready
	$(call SHARE,serve) $(OPTIONS)

ask: $(VENV)/ready
	@$(call SHARE,ask) --question "$$QUESTION" $(OPTIONS)

# torch comes first and pinned: the CPU build of that version is small where there is one.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .snakemake
