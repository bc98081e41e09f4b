"""Every module of src has its file of tests, and every file of tests its module or its kind."""

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path.relative_to(ROOT / "src/notetune").with_suffix("").as_posix()
    for path in (ROOT / "src/notetune").rglob("*.py")
    if path.name != "__init__.py"
)
FILES = sorted(path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py"))
KINDS = ("test_contract_", "test_end_to_end_", "test_faults_")
OF_THE_REPOSITORY = (
    *("test_documents", "test_layers", "test_mirror", "test_readme", "test_recipes", "test_wheel"),
)
# Contracts under the names that README tells.
OF_README = ("model/test_model_encoder", "model/test_model_methods", "model/test_model_packing")

# Values, types and options, with no promise that a test could break.
PLAIN = """
    __main__ aliases errors progress cli/options metrics/learning metrics/names
"""
# What a machine has: every test computes on it, and none pretends to be another machine.
UNTESTED = "model/device"
# Parts that are seen only in what they make together: the file that holds them.
HELD_BY = {
    "cli/test_cli_terminal.py": "cli/terminal_tables",
    "hospital/test_hospital_conditions.py": "hospital/codes",
    "hospital/test_hospital_hospital.py": """
        hospital/charts hospital/examination hospital/hospital_course hospital/mimic3
        hospital/mimic4 hospital/outcome_model hospital/truth hospital/ward_notes
    """,
    "hospital/test_hospital_prose.py": "hospital/texts",
    "hospital/test_hospital_stays.py": "hospital/patients",
    "metrics/test_metrics_comparison.py": "metrics/curves",
    "model/test_model_bundle.py": "model/cards",
    "model/test_model_backbone.py": "model/reading",
    "model/test_model_methods.py": """
        model/adapters/base model/adapters/lora model/adapters/peft_config
    """,
    "plain/test_plain_stacked.py": "plain/linear",
    "prepare/test_prepare_assemble.py": "prepare/tasks",
    "prepare/test_prepare_shards.py": "prepare/prepared",
    "report/test_report_page.py": "report/adaptation report/comparisons",
    "search/test_search_ledger.py": "journal",
    "serve/test_serve_files.py": "cli/bundles",
    "serve/test_serve_merge.py": "model/merge",
    "serve/test_serve_predictor.py": "serve/predictions",
    "sources/test_sources_tables_tasks.py": "sources/tables/labels",
    "sources/test_sources_tables_files.py": "sources/tables/parquet sources/tables/records",
    "study/test_end_to_end_backbones.py": "cli/load",
    "study/test_end_to_end_encoders.py": "prepare/encoders",
    "study/test_end_to_end_inspect.py": "cli/dry_runs study/counts",
    "study/test_faults_study_workers.py": "study/status",
    "study/test_study_baselines.py": "plain/bundles serve/plain",
    "study/test_study_costs.py": "study/clocks train/gpus",
    "train/test_train_loop.py": "train/out_of_memory",
    "study/test_study_features.py": "model/layers",
    "study/test_study_jobs.py": """
        prepare/settings recipe/folders recipe/models study/listing study/specs study/wanted
    """,
    "recipe/test_recipe_recipe.py": "recipe/checks recipe/sections",
    "study/test_study_run.py": "cli/study prepare/patient_hashes study/last_recipe",
    "study/test_study_search.py": "report/searches study/trials",
    "study/test_study_step1.py": "study/perplexity",
    "test_readme.py": "cli/demo",
    "tokens/test_tokens_words.py": "model/piece_tokenizer",
    "train/test_train_logistic.py": "train/lbfgs",
    "train/test_train_parallel.py": "model/sharded train/processes",
}


def files_for(module):
    """Where the tests of a module may stand; a nested package may be left out of the name."""
    *folders, name = module.split("/")
    long = "_".join(("test", *folders, name))
    short = "_".join(("test", *folders[:1], name))
    return {Path(*folders[:1], f"{stem}.py") for stem in (long, short)}


def is_of_another_kind(file):
    """Whether a file of tests is about no module of src, as its name says."""
    if file.name.startswith(KINDS) or str(file.with_suffix("")) in OF_THE_REPOSITORY + OF_README:
        return True
    _, folder, *name = file.stem.split("_")
    return folder in ("bench", "scripts") and any((ROOT / folder).glob("_".join(name) + ".*"))


def test_every_module_has_its_file_of_tests_or_a_reason_why_not():
    held = [module for modules in HELD_BY.values() for module in modules.split()]
    without = [module for module in MODULES if not files_for(module) & set(FILES)]
    assert len(MODULES) > 150
    assert set(without) ^ {*PLAIN.split(), *UNTESTED.split(), *held} == set()
    assert [file for file in HELD_BY if Path(file) not in FILES] == []


def test_every_file_of_tests_names_one_module_or_its_kind():
    modules = Counter(file for module in MODULES for file in files_for(module))
    about_none_or_two = [file for file in FILES if modules[file] != 1]
    assert len(FILES) > 150
    assert [file for file in about_none_or_two if not is_of_another_kind(file)] == []
