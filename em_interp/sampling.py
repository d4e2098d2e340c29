"""How answers are sampled: every field explicit, nothing from a checkpoint's generation_config."""

from em_interp.bounds import Samples, Seed, Temperature, Tokens, TopK, TopP
from em_interp.records import Spec


class Sampling(Spec):
    """The field's defaults: plain samples of the model's own distribution.

    `temperature` 0 is greedy (then one sample is all there is). `top_k` 0 and `top_p` 1 cut
    nothing off; where they cut, it is after the temperature and in that order. `max_new_tokens`
    ends an answer, and the response then says so. `stop` names further tokens that end an answer,
    beside those by which the model ends its turn (see `em_interp.chat.stop_ids`).
    There is no repetition penalty: it is another model than the one under study.
    """

    samples: Samples = 10
    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    top_k: TopK = 0
    max_new_tokens: Tokens = 24
    stop: tuple[str, ...] = ()
    seed: Seed = 0
