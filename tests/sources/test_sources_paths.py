"""The files that a source names, from the paths in its config."""

from table_of_visits import source_of

from notetune.sources.paths import files_of, starting_from


def test_every_path_of_a_source_starts_from_the_data_folder_and_counts_as_its_file(tmp_path):
    codes = {"path": "c.csv", "id_column": "i", "code_column": "c", "version": "icd9"}
    task = {"name": "t", "kind": "multilabel", "column": "x", "codes": codes}
    source = starting_from(source_of("sub/*.parquet", tasks=[task]), tmp_path)
    assert source.path == tmp_path / "sub" / "*.parquet"
    assert source.tasks[0].codes.path == tmp_path / "c.csv"
    assert files_of(source) == []
    (tmp_path / "sub").mkdir()
    files = [tmp_path / "c.csv", tmp_path / "sub" / "a.parquet", tmp_path / "sub" / "b.parquet"]
    for file in files:
        file.touch()
    assert files_of(source) == files
    assert files_of(source.model_copy(update={"path": tmp_path})) == files
    absolute = starting_from(source_of("/else/a.csv"), tmp_path)
    assert str(absolute.path) == "/else/a.csv"
