"""`siqvl runs compare` on a real store, against figures worked out here."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from siqvl.cli.main import main
from siqvl.comparison.score_differences import score_table
from siqvl.evaluation.scoring.scores import Scores
from siqvl.recipe import Recipe, Stage
from siqvl.registry.versions import CHECKPOINT
from siqvl.tracking import heartbeat
from siqvl.tracking.environment import keep_origin
from siqvl.tracking.runs import RunLog, client, end_run, start_run
from siqvl.tracking.store import HEARTBEAT
from tests.written_reports import Answers, write_report

RECIPES = Path(__file__).parents[2] / "recipes"
COUNT = 400


def answers(right: set[int]) -> dict[str, float]:
    return {f"q{index}": float(index in right) for index in range(COUNT)}


EARLIER, LATER = answers(set(range(150, 350))), answers(set(range(300)))


class Store:
    """A sqlite store with two pipelines and some runs beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder}/mlflow.db"
        content = Recipe.load(RECIPES / "tiny.yaml").model_dump(mode="json")
        content["tracking"] |= {"experiment": "test", "uri": self.uri}
        self.recipe = Recipe.model_validate(content)
        content["stages"]["vqa_sft"]["learning_rate"] = 5e-4
        content["model"]["system_prompt"] = None
        content["seed"] = 7
        self.other = Recipe.model_validate(content)
        self.a = self.pipeline(self.recipe, "tiny A", EARLIER)
        self.b = self.pipeline(self.other, "tiny B", LATER, code="0.1.0+other", data="d" * 64)

    def pipeline(
        self, recipe: Recipe, name: str, own: dict[str, float], *, code: str = "", data: str = ""
    ) -> RunLog:
        """Stages 1 and 2; only the first of B's has a benchmark that was prepared otherwise."""
        tags = {"siqvl.code_version": code or "0.1.0+this"}
        log = start_run(recipe, name, tags=tags)
        keep_origin(log, recipe)
        changed = data or "c" * 64
        alignment = {("vqa", "picture"): answers({1}), ("held", "picture"): answers({1, 2})}
        self.evaluation(recipe, log, Stage.PROJECTOR_ALIGNMENT, alignment, {"held": changed})
        # an attempt that was lost, which must not be taken for the result
        lost = {("vqa", "picture"): answers(set(range(COUNT)))}
        self.evaluation(recipe, log, Stage.VQA_SFT, {("vqa", "picture"): own}, {})
        self.evaluation(recipe, log, Stage.VQA_SFT, lost, {}, status="KILLED")
        training = start_run(recipe, "vqa_sft", parent=log.run_id)
        training.params({"data_fingerprint": changed, "stage": "vqa_sft"})
        end_run(training, "FINISHED")
        end_run(log, "FINISHED")
        return log

    def evaluation(
        self,
        recipe: Recipe,
        parent: RunLog,
        stage: Stage,
        answered: Answers,
        data: dict[str, str],
        status: str = "FINISHED",
    ) -> None:
        log = start_run(recipe, f"{stage} evaluation", parent=parent.run_id)
        report = write_report(self.folder / log.run_id / "evaluation", stage, answered)
        scores = Scores.read(report)
        renamed = [
            one.model_copy(update={"data_fingerprint": data.get(one.benchmark, "")})
            for one in scores.scores
        ]
        scores.model_copy(update={"scores": renamed, "checkpoint_hash": parent.run_id * 2}).write(
            report
        )
        log.artifact(report, "evaluation")
        end_run(log, status)

    def compare(self, *arguments: str, experiment: str = "test") -> Result:
        options = ["--tracking-uri", self.uri, "--experiment", experiment]
        return CliRunner().invoke(main, ["runs", "compare", *options, *arguments])

    def run_named(self, parent: RunLog, name: str) -> str:
        found = client(self.uri).search_runs(
            ["1"], f"tags.`mlflow.parentRunId` = '{parent.run_id}' and attributes.status='FINISHED'"
        )
        (run,) = [run for run in found if run.info.run_name == name]
        return run.info.run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a sqlite store keeps its artifacts in ./mlruns
        return Store(folder)


@pytest.fixture(autouse=True)
def _in_the_folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.folder)


def line(output: str, *words: str) -> str:
    found = [one for one in output.splitlines() if all(word in one for word in words)]
    assert len(found) == 1, f"{words} in {output}"
    return found[0]


def test_scores_are_paired_by_question_with_an_interval(store: Store) -> None:
    done = store.compare("tiny A", "tiny B")
    assert done.exit_code == 0, done.output
    cells = re.split(r"\s{2,}", line(done.output, "vqa_sft", "400"))
    assert cells[:6] == ["vqa_sft", "vqa", "400", "50.0 %", "75.0 %", "+25.0"]
    low, high = (float(x.replace("−", "-")) for x in cells[6].split(" … "))
    # an interval of the difference's mean, drawn anew by other means than the code's
    paired = np.array(list(LATER.values())) - np.array(list(EARLIER.values()))
    drawn = np.random.default_rng(11).choice(paired, size=(4000, COUNT)).mean(axis=1)
    expected = 100 * np.quantile(drawn, [0.025, 0.975])
    assert [low, high] == pytest.approx(expected, abs=0.8)
    assert cells[7] == "better"
    # the other way round it is the same with the other sign
    back = re.split(r"\s{2,}", line(store.compare("tiny B", "tiny A").output, "vqa_sft", "400"))
    assert back[3:6] == ["75.0 %", "50.0 %", "−25.0"]
    assert back[7] == "worse"
    assert line(done.output, "vqa: ") == "vqa: generation, exact_match/1"


def test_scores_by_two_rules_say_so(tmp_path: Path) -> None:
    answers = {("vqa", "picture"): {"x": 1.0, "y": 0.0}}
    sides: list[Any] = []
    for name in ("exact_match/1", "choice/2"):
        folder = write_report(tmp_path / name, Stage.VQA_SFT, answers, scorer=name)
        sides.append(
            SimpleNamespace(reports={(Stage.VQA_SFT, False): (Scores.read(folder), folder)})
        )
    found = score_table(*sides).splitlines()[-1]
    assert found == "vqa: generation, exact_match/1, but B generation, choice/2"


def test_equal_answers_are_neither_better_nor_worse(store: Store) -> None:
    row = line(store.compare("tiny A", "tiny B").output, "projector_alignment", "vqa", "400")
    assert re.split(r"\s{2,}", row) == [
        *("projector_alignment", "vqa", "400", "0.2 %", "0.2 %", "+0.0", "+0.0 … +0.0")
    ]


def test_other_questions_under_equal_ids_are_a_sentence(store: Store) -> None:
    row = line(store.compare("tiny A", "tiny B").output, "projector_alignment", "held")
    assert row.startswith("projector_alignment, held: the two answered different questions")
    assert "%" not in row


def test_the_recipes_differences_by_dotted_names(store: Store) -> None:
    output = store.compare("tiny A", "tiny B").output
    part = output.split("\n\n")[2].splitlines()
    assert part[0].split() == ["recipe", "A", "B"]
    assert [re.split(r"\s{2,}", row) for row in part[2:]] == [
        ["seed", "0", "7"],
        ["model.system_prompt", '""', "null"],
        ["stages.vqa_sft.learning_rate", "0.001", "0.0005"],
    ]


def test_what_else_differs(store: Store) -> None:
    part = store.compare("tiny A", "tiny B").output.split("\n\n")[3].splitlines()
    assert part[0].startswith("also different")
    found = {row[0]: row[1:] for row in (re.split(r"\s{2,}", one) for one in part[2:])}
    assert found == {
        "code": ["0.1.0+this", "0.1.0+other"],
        "data of vqa_sft": ["c" * 12, "d" * 12],
        "benchmark held: data": ["c" * 12, "d" * 12],
        "checkpoint projector_alignment": [store.a.run_id[:12], store.b.run_id[:12]],
        "checkpoint vqa_sft": [store.a.run_id[:12], store.b.run_id[:12]],
    }


def test_a_run_and_itself_are_equal(store: Store) -> None:
    parts = store.compare(store.a.run_id, store.a.run_id[:6]).output.strip().split("\n\n")
    assert parts[2:] == ["Their recipes are equal.", "Code, data and checkpoints are equal."]


def test_single_runs_and_trainings_speak_for_their_evaluations(store: Store) -> None:
    evaluation = store.run_named(store.b, "vqa_sft evaluation")
    training = store.run_named(store.a, "vqa_sft")
    row = line(store.compare(training, evaluation).output, "400")
    assert re.split(r"\s{2,}", row)[:6] == ["vqa_sft", "vqa", "400", "50.0 %", "75.0 %", "+25.0"]
    aligned = store.run_named(store.b, "projector_alignment evaluation")
    across = store.compare(aligned, evaluation).output
    assert "projector_alignment → vqa_sft" in line(across, "400")
    assert "only A answered it" in line(across, "held")
    assert "Their recipes are equal." in across  # the pipeline's, which both are part of


def alone(store: Store, name: str, own: dict[str, float]) -> RunLog:
    """A training and its evaluation, each a command of its own."""
    training = start_run(store.recipe, f"vqa_sft of {name}")
    training.tags({CHECKPOINT: name * 64})
    end_run(training, "FINISHED")
    report = write_report(store.folder / name, Stage.VQA_SFT, {("vqa", "picture"): own})
    log = start_run(store.recipe, f"evaluation of {name}", tags={CHECKPOINT: name * 64})
    log.artifact(report, "evaluation")
    end_run(log, "FINISHED")
    return training


def test_trainings_and_champions_are_compared_by_their_checkpoints(store: Store) -> None:
    a, b = alone(store, "a", EARLIER), alone(store, "b", LATER)
    row = line(store.compare(a.run_id, b.run_id).output, "400")
    assert re.split(r"\s{2,}", row)[:6] == ["vqa_sft", "vqa", "400", "50.0 %", "75.0 %", "+25.0"]
    registry = client(store.uri)
    registry.create_registered_model("siqvl-tiny")
    registry.create_model_version("siqvl-tiny", str(store.folder), a.run_id)
    registry.set_registered_model_alias("siqvl-tiny", "champion", "1")
    for champion in ("models:/siqvl-tiny@champion", "models:/siqvl-tiny/1"):
        assert line(store.compare(champion, b.run_id).output, "400") == row
    for none in ("models:/siqvl-tiny@other", "models:/siqvl-tiny/7", "models:/siqvl-tiny"):
        refused = store.compare(none, b.run_id)
        assert refused.exit_code == 1
        assert f"{none} is no registered model (" in refused.output


def test_a_stage_that_only_one_has_is_a_sentence(store: Store) -> None:
    evaluation = store.run_named(store.b, "vqa_sft evaluation")
    output = store.compare("tiny A", evaluation).output
    assert line(output, "projector_alignment: only A was evaluated")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("tiny", "experiment `test` has no run `tiny`; near it are `tiny B`, `tiny A`"),
        ("tinyA", "experiment `test` has no run `tinyA`; near it are `tiny A`"),
        ("vqa_sft", r"2 runs of experiment `test` are called `vqa_sft`, give one's id: \w{8} `vqa"),
        ("zzz", "experiment `test` has no run `zzz`; its newest are "),
    ],
)
def test_a_run_that_is_not_found_is_one_line(store: Store, wanted: str, message: str) -> None:
    done = store.compare(wanted, "tiny B")
    assert done.exit_code == 1
    (said,) = done.output.strip().splitlines()
    assert re.match(f"Error: {message}", said), said


def test_three_characters_of_an_id_are_too_few(store: Store) -> None:
    assert store.compare(store.a.run_id[:3], "tiny B").exit_code == 1
    assert store.compare(store.a.run_id[:6], "tiny B").exit_code == 0


def test_a_store_or_an_experiment_that_is_not_there_is_one_line(store: Store) -> None:
    done = store.compare("a", "b", experiment="siqvl")
    assert done.output.startswith("Error: the MLflow store has no experiment `siqvl`, but `test`")
    uri = "sqlite:///none.db"
    done = CliRunner().invoke(main, ["runs", "compare", "--tracking-uri", uri, "a", "b"])
    assert done.output.startswith("Error: there is no MLflow store sqlite:///none.db: name that of")
    assert done.exit_code == 1
    assert not Path("none.db").exists()


def test_a_run_that_has_lost_its_process_is_killed(store: Store, caplog) -> None:
    log = start_run(store.recipe, "tiny lost")
    keep_origin(log, store.recipe)
    log.flush()
    heartbeat._open.clear()  # as when its process is gone
    client(store.uri).set_tag(log.run_id, HEARTBEAT, "1 1")
    done = store.compare("tiny A", "tiny lost")
    assert line(done.stdout, "tiny lost").split()[-1] == "KILLED"
    assert "run `tiny lost` has had no heartbeat" in caplog.text
