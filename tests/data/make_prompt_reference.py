"""Writes prompt_reference.json: what transformers generates after prompts.

    pip install torch==2.14.0 transformers==5.24.0
    python tests/data/make_prompt_reference.py

The model is a table: "logits" has those of the next token after each token, and 0 ends a caption.
"cases" are lists of a prompt, the options of `generate`, the generated tokens and their score: the
log-probability with the length penalty of beam search.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

PATH = Path(__file__).with_name("prompt_reference.json")
VOCABULARY, MAX_NEW_TOKENS = 12, 12
PROMPTS = [
    [7, 8, 7, 8, 7],
    [4, 3, 3, 4, 3],
    [2, 9, 6, 2, 9],
    [1, 2, 4, 11, 5],
    [9, 8, 3, 9, 2],
    [10, 1, 7, 5, 9],
]
OPTIONS = [
    {},
    {"repetition_penalty": 1.6},
    {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
    {"no_repeat_ngram_size": 3, "min_new_tokens": 4},
]
SEARCHES = [{}, {"num_beams": 3, "length_penalty": 0.7}]


class Table(PreTrainedModel, GenerationMixin):
    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig):
        super().__init__(config)
        self.logits = torch.nn.Parameter(torch.zeros(VOCABULARY, VOCABULARY))
        self.post_init()

    def forward(self, input_ids: torch.Tensor, **ignored: object) -> CausalLMOutput:
        return CausalLMOutput(logits=self.logits[input_ids])


def main() -> None:
    torch.manual_seed(0)
    model = Table(PretrainedConfig(eos_token_id=0, pad_token_id=0, vocab_size=VOCABULARY))
    model.logits.data = (2 * torch.randn(VOCABULARY, VOCABULARY)).round(decimals=3)
    model.logits.data[:, 0] += 1
    cases = []
    for prompt in PROMPTS:
        for options in OPTIONS:
            # In a beam search, transformers applies the penalty to log-probabilities.
            for search in SEARCHES[:1] if "repetition_penalty" in options else SEARCHES:
                result = model.generate(
                    torch.tensor([prompt]),
                    attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                    max_new_tokens=MAX_NEW_TOKENS,
                    do_sample=False,
                    use_cache=False,
                    early_stopping="never" if search else None,
                    return_dict_in_generate=True,
                    output_scores=True,
                    **options,
                    **search,
                )
                tokens = result.sequences[0, len(prompt) :].tolist()
                if search:
                    score = float(result.sequences_scores[0])
                else:
                    steps = model.compute_transition_scores(
                        result.sequences, result.scores, normalize_logits=True
                    )
                    score = float(steps.sum())
                cases.append([prompt, {**options, **search}, tokens, round(score, 5)])
    contents = {"logits": [[round(x, 3) for x in row] for row in model.logits.tolist()]}
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = json.dumps(contents)[:-1] + f', "cases": [\n{lines}\n]}}\n'
    json.loads(text)
    PATH.write_text(text)


if __name__ == "__main__":
    main()
