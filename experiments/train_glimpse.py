"""Train GlimpsePrune's modules for a model: `python -m experiments.train_glimpse RUN`.

Only the glimpse token and the predictor are trained, on questions with evidence boxes (experiments/asking/grounded.py):
cross-entropy of the answer, plus Dice and binary cross-entropy of the predicted mask (arXiv 2508.01548, section 3.3).
Hugging Face's Trainer does the rest: it resumes from the latest checkpoint of the same model and parameters in
data/checkpoints/glimpse, runs on several GPUs under `torchrun` or `accelerate launch`, and in bf16 where the GPU has
it. The runs are in the section `train_glimpse` of params.yaml, named after their model (or naming it). Writes
data/models/glimpse-RUN and results/training_glimpse_RUN.csv.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet
import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from experiments import stage
from experiments.asking import models
from experiments.asking.grounded import GroundedQuestions, collate
from experiments.parameters.load import Parameters
from experiments.parameters.training import TrainGlimpse
from experiments.recorded.cells import digest, write_text
from experiments.testbed.questions import TYPES
from experiments.testbed.table import draw
from pruning.glimpse import checkpoint
from pruning.glimpse.configuration import PUBLISHED_CONFIGS, GlimpseConfig
from pruning.glimpse.losses import BCE_WEIGHT, DICE_WEIGHT, box_mask, predictor_losses
from pruning.glimpse.modules import GlimpseModules
from pruning.glimpse.training import training_forward

CHECKPOINTS = Path("data/checkpoints/glimpse")
MODELS, RESULTS = Path("data/models"), Path("results")
LOSSES = ("cross_entropy", "dice", "bce")


class GlimpseLoss(nn.Module):
    """What the Trainer sees: the modules are its parameters, the model they belong to is not.

    So checkpoints hold, and processes exchange, what is trained alone.
    """

    def __init__(self, model: PreTrainedModel, modules: GlimpseModules) -> None:
        super().__init__()
        self.trained = modules
        self._frozen = (model.requires_grad_(False).eval(),)

    def forward(self, labels: Tensor, boxes: list[list[list[float]]], **inputs: Tensor) -> dict[str, Tensor]:
        """`loss` and its parts, see LOSSES."""
        output = training_forward(self._frozen[0], self.trained, inputs, labels)
        found = output.importance
        target_N = torch.cat(
            [
                box_mask(own, rows, columns).flatten()
                for own, grids in zip(boxes, found.grids, strict=True)
                for rows, columns in grids
            ]
        ).to(found.logits_N.device)
        dice, bce = predictor_losses(found.logits_N.float(), target_N, found.tokens_per_sample)
        parts = {"cross_entropy": output.cross_entropy, "dice": dice, "bce": bce}
        return {"loss": output.cross_entropy + DICE_WEIGHT * dice + BCE_WEIGHT * bce} | parts


class GlimpseTrainer(Trainer):
    """A Trainer that also logs the parts of the loss, as means since it last did."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._parts: list[Tensor] = []

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *rest: Any, **options: Any) -> Tensor:
        output = model(**inputs)
        self._parts.append(torch.stack([output[name].detach() for name in LOSSES]))
        return output["loss"]

    def log(self, logs: dict[str, float], *rest: Any, **options: Any) -> None:
        if self._parts and "loss" in logs:
            means = torch.stack(self._parts).mean(0).tolist()
            logs |= {name: round(value, 5) for name, value in zip(LOSSES, means, strict=True)}
            self._parts.clear()
        super().log(logs, *rest, **options)


def load_questions(settings: TrainGlimpse) -> GroundedQuestions:
    """Freshly drawn scenes, a table like data/scenes/*.parquet, or one of Visual-CoT's jsonl files."""
    if settings.data == "scenes":
        drawn = draw("glimpse", -(-settings.questions // len(TYPES)), settings.seed)
        return GroundedQuestions.from_table(drawn.data.table, settings.questions, settings.seed)
    file = Path(settings.data)
    if file.suffix == ".parquet":
        return GroundedQuestions.from_table(pyarrow.parquet.read_table(file), settings.questions, settings.seed)
    return GroundedQuestions.from_visual_cot(file, Path(settings.images or "."), settings.questions, settings.seed)


def configuration(model_name: str, settings: TrainGlimpse) -> GlimpseConfig:
    """The parameters' own, or the published one of the model."""
    if settings.config:
        given = {**settings.config, "selected_visual_layers": tuple(settings.config.get("selected_visual_layers", ()))}
        try:
            return GlimpseConfig(**given)
        except (TypeError, ValueError) as error:
            cause = str(error).removeprefix("GlimpseConfig.__init__() ")
            raise ValueError(f"train_glimpse.config of {model_name}: {cause}") from error
    if model_name not in PUBLISHED_CONFIGS:
        raise ValueError(
            f"train_glimpse.config is empty, and there is no published one for {model_name}: "
            f"{', '.join(PUBLISHED_CONFIGS)}"
        )
    return PUBLISHED_CONFIGS[model_name].config


def train(run: str, settings: TrainGlimpse, checkpoints: Path) -> tuple[GlimpseModules, pd.DataFrame]:
    """Train the modules, or finish where an earlier run stopped; returns them and the log."""
    model_name = settings.model or run
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        seed=settings.seed,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warm_up,
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        logging_steps=settings.log_every,
        save_steps=settings.save_every,
        save_total_limit=1,
        report_to="none",
        remove_unused_columns=False,
        dataloader_num_workers=settings.workers,
        use_cpu=not cuda,
    )
    if arguments.n_gpu > 1:
        command = f"torchrun --nproc_per_node {arguments.n_gpu} -m experiments.train_glimpse {run}"
        raise ValueError(f"there are {arguments.n_gpu} GPUs, each needs a process of its own: {command}")
    model, processor = models.load(model_name, str(arguments.device))
    torch.manual_seed(settings.seed)
    modules = GlimpseModules.for_model(model, configuration(model_name, settings))
    nn.init.constant_(modules.le_norm.weight, settings.token_scale)
    trainer = GlimpseTrainer(
        model=GlimpseLoss(model, modules),
        args=arguments,
        train_dataset=load_questions(settings),
        data_collator=lambda questions: collate(processor, questions),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)) if checkpoints.exists() else None)
    log = pd.DataFrame([entry for entry in trainer.state.log_history if "dice" in entry])
    return modules.eval(), log[["step", "epoch", "learning_rate", "grad_norm", "loss", *LOSSES]]


def write(parameters: Parameters, name: str) -> None:
    """The modules of one run and its log."""
    settings = stage.chosen("run", name, "train_glimpse", parameters.train_glimpse)
    started = digest([name, settings.model_dump()])[:16]
    modules, log = train(name, settings, CHECKPOINTS / started)
    if not PartialState().is_main_process:
        return
    checkpoint.save(modules, MODELS / f"glimpse-{name}")
    write_text(RESULTS / f"training_glimpse_{name}.csv", log.to_csv(index=False))


main = stage.command(__doc__, write, argument=("run", "a key of params.yaml's train_glimpse"))

if __name__ == "__main__":
    main()
