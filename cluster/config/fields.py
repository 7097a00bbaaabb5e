"""The complete configuration of a run. The comment behind each field is what `cluster/train.py --help` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cluster.config.tasks import LossName, TaskName, compares_samples
from idc.model.config import ModelConfig

HOLDOUT = "holdout"  # --evaluate.split: not a split of a folder, but a folder of its own

NegativeKind = Literal["retrieve", "replace", "confuse"]
if TYPE_CHECKING:  # fractions are no literals to a type checker (PEP 586); the command line knows the choices
    GpusPerWorker = float | Literal["auto"]
else:
    GpusPerWorker = Literal["auto", 0, 0.5, 1]
RESERVED = ("all", "train", "evaluate", "stage", "help")  # words of the command line that cannot name a stage
# Fields that cannot change what is learned: a run folder may be resumed with other values of these.
HARMLESS = (
    "root", "data.pack_workers", "data.read_threads", "data.prefetch", "data.features_on", "data.bad_samples",
    "data.loaders", "backbone.checkpointing",
    "evaluate.", "log.", "cluster.workers", "cluster.zero_stage", "cluster.gpus_per_worker", "cluster.cpus_per_worker",
    "cluster.threads", "cluster.timeout_s", "cluster.restarts",
)  # fmt: skip
HARMLESS_OF_STAGE = ("log_every", "checkpoint_every", "keep", "skip_limit")
# Fields of a stage that has begun which may be lowered when it is resumed: the run folder keeps from which step on.
LOWERED = ("lr", "clip", "spike_factor")
# Values that leave something to the machine: a run begun with one may be resumed with what it came to.
LEFT_OPEN = {"cluster.precision": "auto"}
# Model fields that the data decide; they are filled in when the data are opened.
DERIVED = (
    "model.vocab_size", "model.feature_dim", "model.grid", "model.classes", "model.fine_channels", "model.attributes",
    "model.pad", "model.bos", "model.eos", "model.unk", "model.cls", "model.mask",
)  # fmt: skip


@dataclass(frozen=True)
class BlocksConfig:
    """What is packed when the embedded data set is missing; the fields of shards.sources.blocks.BlocksOptions."""

    seed: int = 0  # of scenes, captions and camera
    scenes: tuple[int, int, int] = (4000, 250, 500)  # scene triples of the train, val and test split
    size: tuple[int, int] = (336, 224)  # width and height of the images, pixels
    supersample: int = 1  # rays a pixel along each axis
    relational: float = 0.0  # share of captions that name an object by its relation to another
    class_photos: int = 40  # single-object photos of each of the 96 classes
    camera: float = 1.0  # by how much its place varies along each axis in the train split; 1 in the others


@dataclass(frozen=True)
class EditsConfig:
    """What is packed when the folder of edited photos is missing: shards.sources.edits.EditsOptions, and the photos."""

    photos: str = ""  # folder of photos, in sub-folders or not, relative to the root
    seed: int = 0  # of edits and captions
    pairs: tuple[int, int, int] = (2000, 200, 500)  # of the train, val and test split; photos are divided alike
    size: tuple[int, int] = (224, 224)  # width and height of the images, pixels
    cutouts: str = ""  # folder of PNGs with transparency to paste; empty: shapes and glyphs of a font


@dataclass(frozen=True)
class AugmentConfig:
    """Of training images, each by itself; what would make a caption or a negative of the sample false is left out."""

    light: float = 0.0  # brightness, contrast and colour by at most this share up or down
    crop: float = 0.0  # at most this share of the height and of the width cut off
    mirror: bool = False  # half of the samples, all images of one alike; none whose text names a side


@dataclass(frozen=True)
class DataConfig:
    shards: str = "data/blocks"  # shard folder, relative to the root, or its URL (s3://bucket/folder)
    features: str = ""  # folder of cached grid features, made when missing; empty: beside the shards; of a URL: in data
    mix: dict[str, float] = field(default_factory=dict)  # more folders to take pairs from, by weight; data.shards has 1
    photos: str = ""  # folder or URL that captioned photos are taken from; empty: data.shards
    classes: str = ""  # folder or URL that class-labelled photos and the names of classes are from; empty: data.shards
    words: int = 0  # what there is to see is told by at most this many words of the captions; 0: by the classes
    # What is packed when the shard folder is missing; none: nothing.
    source: Literal["blocks", "edits", "none"] = "blocks"
    blocks: BlocksConfig = field(default_factory=BlocksConfig)
    edits: EditsConfig = field(default_factory=EditsConfig)
    # Trained when the shards are packed here, or where the captions are those of several folders.
    tokenizer: Literal["sentencepiece", "words"] = "sentencepiece"
    pack_workers: int = 0  # processes that pack and cache features; 0: one a core
    read_threads: int = 2  # threads of a worker that read and assemble batches ahead of the model
    prefetch: int = 4  # steps that are held ready
    # Where cached features are read from in training: the GPU's memory, the worker's, or the disk at every step; auto:
    # the GPU's where they fit into half of what is free, else the disk.
    features_on: Literal["auto", "gpu", "cpu", "disk"] = "auto"
    # Processes of a worker that decode images where --backbone.mode is live; 0: its share of the machine's CPUs.
    loaders: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    bad_samples: float = 0.001  # share of a stream's samples that may be unreadable and replaced; 0: none, else 1 may


@dataclass(frozen=True)
class BackboneConfig:
    name: str = "efficientnet_lite0"  # timm model that makes grid features of images
    # cached: it runs once over all images, and training reads features; live: it runs in every step, on the images.
    mode: Literal["cached", "live"] = "cached"
    train: str = "none"  # of a live one: none, all, or last:N, its N last layers
    lr: float = 1e-5  # peak learning rate of its last layer; the schedule is that of the stage
    lr_decay: float = 0.75  # of a layer, as a share of the learning rate of the layer after it
    checkpointing: bool = False  # activations inside of its layers are computed again in place of being kept
    # Local weight file; empty: the installed ImageNet weights of efficientnet_lite0, else those of timm's hub.
    weights: str = ""
    size: tuple[int, int] = (128, 160)  # height and width that images are fitted into, pixels
    # Pixels between the cells of each level that is taken, finest first; empty: 8,16 where the model has both, else its
    # last level. Of a vision transformer 16,16 are two layers, 16,32 the second of them averaged over 2 x 2 patches.
    strides: tuple[int, ...] = ()


@dataclass(frozen=True)
class NegativesConfig:
    kinds: tuple[NegativeKind, ...] = ("retrieve", "replace", "confuse")  # which lists hard negatives are drawn from
    count: int = 6  # negatives K a pair


@dataclass(frozen=True)
class StageConfig:
    steps: int = 1000  # optimiser steps; 0: the stage is left out
    global_batch_size: int = 64  # samples a step over all workers
    micro_batch_size: int = 64  # most samples a worker puts through the model at once; the rest is accumulated
    ratios: dict[TaskName, float] = field(default_factory=dict)  # how often each task is drawn; one task a step
    batch_sizes: dict[TaskName, int] = field(default_factory=dict)  # samples a step of single tasks, where it differs
    weights: dict[LossName, float] = field(default_factory=dict)  # of each loss; else 1, and 0 for fda in finetune
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    mvcl_temperature: float = 1.0  # of the masked visual contrastive loss
    fda_temperature: float = 1.0  # of the fine-grained difference aligning loss
    contrastive_group: int = 16  # samples that contrastive losses compare with each other; 0: the whole global batch
    label_smoothing: float = 0.0  # of the losses over words
    same_class_share: float = 0.5  # classify: share of the photo pairs that are of one class
    lr: float = 1e-3  # peak learning rate
    schedule: Literal["noam", "cosine", "constant", "halving"] = "cosine"  # after a linear warm-up
    warmup_steps: int = 100  # steps of linear warm-up
    lr_floor: float = 0.0  # cosine: the last learning rate as a share of the peak
    halve_at: tuple[int, ...] = ()  # halving: steps at which the learning rate is halved
    weight_decay: float = 0.01  # AdamW, on matrices alone; 0 is plain Adam
    betas: tuple[float, float] = (0.9, 0.999)  # AdamW
    clip: float = 1.0  # largest norm of the gradient; 0: no clipping
    checkpoint_every: int = 500  # steps between checkpoints; one is always written at the end
    keep: int = 2  # newest checkpoints kept, besides the best
    log_every: int = 10  # steps between lines of metrics.jsonl
    # A gradient whose norm is above so many times the median of the last 64 steps of its task is left out; 0: none is.
    spike_factor: float = 1000.0
    skip_limit: int = 5  # steps in a row that are left out (a spike, or a loss that is not finite) before the run stops
    start_parts: tuple[str, ...] = ()  # parts of the model that start from the stage before, or from --init; empty: all


@dataclass(frozen=True)
class FinetuneConfig(StageConfig):
    references: int = 1  # captions of a pair that one step teaches, for one pass over its images
    per_word: bool = False  # every loss is divided by the scored words, as sums are alike; false: each by its own count
    validate_every: int = 0  # steps between captioning the validation split; 0: never
    validate_limit: int = 0  # most pairs captioned at a validation; 0: all
    # The metric of the best checkpoint, or "last": the newest is the best.
    select: Literal["CIDEr", "ROUGE_L", "BLEU-4", "balanced", "object", "last"] = "CIDEr"


@dataclass(frozen=True)
class EvaluateConfig:
    shards: str = ""  # another shard folder or its URL to caption and score; empty: the run's own
    # Split to caption and score. holdout: 900 scenes of blocks that no choice was read off, packed where missing.
    split: Literal["train", "val", "test", "holdout"] = "test"
    beam: int = 3  # beam width; 1: greedy
    length_penalty: float = 0.6  # beam scores are divided by length to this power
    batch_size: int = 32  # pairs captioned at once by a worker
    limit: int = 0  # most pairs to caption; 0: all
    tokenizer: Literal["ptb", "split"] = "ptb"  # of the metrics: the COCO tools' own, or white space


@dataclass(frozen=True)
class ClusterConfig:
    # Training processes; 0: as many as the GPUs have room for, two where CPUs train; 2..8: as many of 2 to 8 as there
    # is room for, fewer when a machine is lost, more when one comes.
    workers: int | str = 0
    # auto: 1 where Ray's cluster has GPUs, else 0. 0: CPUs, gloo; 1: a GPU each, NCCL; 0.5: two share a GPU, gloo.
    gpus_per_worker: GpusPerWorker = "auto"
    cpus_per_worker: float = 1.0  # CPUs that Ray sets aside for a worker
    threads: int = 1  # torch threads of a worker
    # DeepSpeed ZeRO: what is sharded (1 optimiser, 2 gradients, 3 parameters); auto: 1 for several workers, 0 for one.
    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"
    # Of matrix products; weights and optimiser stay fp32. auto: bf16 on GPUs, fp32 on CPUs.
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # torch.compile of the model; reduce-overhead also records CUDA graphs.
    compile: Literal["off", "default", "reduce-overhead"] = "off"
    timeout_s: int = 600  # longest wait for another worker, seconds
    restarts: int = 3  # times that workers are started again after a fault, from the newest checkpoint; 0: never

    @property
    def worker_range(self) -> tuple[int, int]:
        """Fewest and most workers; zeros where that is left open. ValueError where the option is neither N nor A..B."""
        least, dots, most = str(self.workers).partition("..")
        return int(least), int(most if dots else least)


@dataclass(frozen=True)
class LogConfig:
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"  # auto: online where a key is set, else offline
    project: str = "image-difference-captioning"  # W&B project
    tensorboard: bool = False  # event files in runs/NAME/tensorboard, too
    profile_steps: int = 0  # steps of each stage, after 20 others, that PyTorch's profiler records into traces/


@dataclass(frozen=True)
class Config:
    name: str = "run"  # name of the run folder, runs/NAME
    seed: int = 0  # of the weights, the order of samples, masks and dropout
    # Folder of data/ and runs/; empty: $IDC_HOME, else the checkout; of an installed package the working folder.
    root: str = ""
    # A trained model for the first stage to start from: run folder, its model/, OWNER/NAME of the hub, or .safetensors;
    # words and classes are taken over by name.
    init: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(vocab_size=6, classes=1, fine_channels=1))
    # Pre-training stages in order, each by a name of the recipe's choice: options are --NAME.steps and so on.
    pretraining: dict[str, StageConfig] = field(default_factory=lambda: {"pretrain": StageConfig()})
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def stages(self) -> tuple[str, ...]:
        """The training stages in order, "finetune" last; those of no steps too."""
        return (*self.pretraining, "finetune")

    def stage(self, name: str) -> StageConfig:
        """The settings of a training stage."""
        return self.finetune if name == "finetune" else self.pretraining[name]


def is_harmless(option: str) -> bool:
    """True where a run may be resumed with another value of this dotted option."""
    if option.rpartition(".")[2] in HARMLESS_OF_STAGE:
        return True
    return any(option == name or (name.endswith(".") and option.startswith(name)) for name in HARMLESS)


def is_lowered(option: str, new: object, old: object) -> bool:
    """True where an option that may be lowered under way is: to a smaller number, or from none (0) to one."""
    if not (isinstance(new, (int, float)) and isinstance(old, (int, float))):
        return False
    return option.rpartition(".")[2] in LOWERED and 0 < new and (new < old or not old)


def names_regions(stage: StageConfig, model: ModelConfig) -> bool:
    """Whether fine-tuning teaches, beside its captions, what their words look like: where the classes are words."""
    return isinstance(stage, FinetuneConfig) and model.attributes and stage.weights.get("labels", 0) > 0


def task_batch_size(stage: StageConfig, task: str) -> int:
    """Samples of one step of a task over all workers."""
    return stage.batch_sizes.get(task, stage.global_batch_size)


def task_group(stage: StageConfig, task: str) -> int:
    """Consecutive samples that must stay on one worker and in one micro-batch."""
    return (stage.contrastive_group or 1) if compares_samples(task) else 1


def task_micro_batches(stage: StageConfig, task: str, world: int) -> tuple[int, int]:
    """(micro-batches of a worker in a step, samples in each): the same on every worker, groups whole.

    As few as hold the largest share, and as small as these then can be. What does not divide is evened out with rows
    that count for nothing, so a worker whose share is smaller, or empty, takes part in every collective.
    """
    group = task_group(stage, task)
    share = -(-task_batch_size(stage, task) // group // world)  # groups
    number = -(-share // max(stage.micro_batch_size // group, 1))
    return number, group * -(-share // number)
