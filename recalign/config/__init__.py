"""The typed settings of every stage: flow parameters, presets and `--set` are all these models."""

from recalign.config.alignment import PERSONAL, AlignmentConfig, GRPOConfig, Loss
from recalign.config.base import Config
from recalign.config.dpo4rec import DPO4RecConfig
from recalign.config.evaluation import (
    EndedReportConfig,
    EvaluationConfig,
    EvaluationPhase,
    ReportConfig,
    RoundsConfig,
)
from recalign.config.interactions import (
    AmazonSource,
    FilesSource,
    GoodreadsSource,
    InteractionsConfig,
    SyntheticWorld,
)
from recalign.config.leaderboard import LeaderboardConfig, ShownCell, ShownSetting
from recalign.config.oracle import OracleConfig
from recalign.config.policy import (
    AnswersConfig,
    BootstrapConfig,
    ItemReasoningsConfig,
    LoadedModelConfig,
    PhaseConfig,
    PolicyConfig,
    ReasoningsConfig,
    SamplingConfig,
)
from recalign.config.recommender import PairsConfig, RecommenderConfig, RewardsConfig
from recalign.config.rejections import (
    ASKS_SFT,
    MixConfig,
    RejectionsConfig,
    RejectionsStage,
    Strategy,
)
from recalign.config.rosepo import (
    ComparedRow,
    ComparisonConfig,
    FoldsConfig,
    RecommendationsConfig,
    RecommendationsPhase,
    ReferenceConfig,
    RosePOAlignmentConfig,
    RosePOConfig,
    SmoothingConfig,
)
from recalign.config.runtime import ChatServerConfig, Runtime
from recalign.config.serving import DriftConfig, RecommendConfig, ServingConfig, TitleServingConfig
from recalign.config.sft import SftConfig, TitleModelConfig, TitlePromptConfig
from recalign.config.small_llama import SmallLlamaConfig
from recalign.config.splits import SplitsConfig
from recalign.config.training import WarmUpConfig

TrainingConfig = AlignmentConfig | SftConfig | WarmUpConfig
"""Settings of anything that trains an LLM."""
