"""The writer behind a server: chat completions, several requests at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from recalign.chat_server.client import connect, reading, told_in_one_line
from recalign.chat_server.engines import Engine, extra_fields, find_engine, not_promised
from recalign.chat_server.served_models import ensure_served
from recalign.chat_server.usage import Usage
from recalign.config import ChatServerConfig
from recalign.errors import UserError
from recalign.policy import Policy
from recalign.seeding import derive_seed
from recalign.writer import Asked, Written

if TYPE_CHECKING:  # a second to import
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

GREEDY = -1  # number of the sample
COUNTS_WHOLE_PROMPTS = ("vllm", "sglang", "llama.cpp", "transformers")  # cached tokens included


@dataclass(frozen=True)
class ServedPolicy:
    """A policy behind a server, and the same one here: its template, tokenizer and texts' ends."""

    model: str  # what the server calls it
    local: Policy  # its weights are never used
    aligned: Path | None = None  # the folder of adapter or weights that `model` has to be


@dataclass(frozen=True)
class Answer:
    """One answered request."""

    samples: list[int]  # the number of each of its choices
    completion: "ChatCompletion"


@dataclass
class ServerWriter:
    """Asks the server for texts by chat. See `recalign.writer.Writer`.

    The server wraps a prompt in the model's chat template. That must be the template and the
    tokenizer of `policy.local`, on which training stands: the counted prompt tokens tell. What is
    used is added to what the folder `work` tells of earlier processes, and kept there by
    `keep_usage`.
    """

    server: ChatServerConfig
    policy: ServedPolicy
    work: Path
    client: "OpenAI" = field(init=False)
    engine: Engine = field(init=False)
    usage: Usage = field(init=False)
    at_once: int = 256  # samples asked of one request; as many as the server was seen to give
    counting: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        """Connect; UserError when the server, the model on it or a chat template is missing."""
        if not self.policy.local.chats:
            raise UserError(
                "reasonings.writer = openai asks by chat; policy.model has no chat template, or "
                "policy.chat_template is never"
            )
        self.client = connect(self.server)
        with told_in_one_line(self.server, self.policy.model):
            self.engine = find_engine(self.client)
            ensure_served(self.client, self.engine, self.policy.model, self.policy.aligned)
        self.usage = Usage.load(self.work)
        self.usage.engine, self.usage.model = self.engine, self.policy.model
        self.usage.not_promised = not_promised(self.engine)

    def write(
        self, prompts: Sequence[str], users: Sequence[int], asked: Asked
    ) -> Iterator[list[Written]]:
        """The texts of all prompts, one prompt's together, as they are answered."""
        local, done = self.policy.local, False
        extra = extra_fields(self.engine, asked.sampling, local.eos_ids, local.pad_id)
        pool = ThreadPoolExecutor(self.server.requests)
        try:
            with told_in_one_line(self.server, self.policy.model):
                waiting = {
                    pool.submit(self._answers, sent, user, asked, extra): (sent, user)
                    for sent, user in zip(map(self._sent, prompts), users, strict=True)
                }
                for future in as_completed(waiting):
                    yield self._written(*waiting[future], future.result())
            done = True
        finally:
            pool.shutdown(wait=done, cancel_futures=True)
            if not done:
                self.client.close()  # what is under way ends now, not after its time limit

    def keep_usage(self) -> None:
        """To be called once the texts are kept: those of a run that ends before are asked again."""
        self.usage.save(self.work)

    def _sent(self, prompt: str) -> str:
        """The prompt with control tokens in it broken up: a server would obey them."""
        sent = self.policy.local.harmless(prompt)
        self.usage.prompts_with_control_tokens += sent != prompt
        return sent

    def _answers(self, sent: str, user: int, asked: Asked, extra: dict[str, Any]) -> list[Answer]:
        """Answers that together hold all of `asked.samples`."""
        answers = [self._ask(sent, user, [GREEDY], asked, extra)] if asked.greedy else []
        pending = list(range(asked.n_samples))
        while pending:
            answers.append(self._ask(sent, user, pending[: self.at_once], asked, extra))
            pending = pending[len(answers[-1].samples) :]
        return answers

    def _ask(
        self, sent: str, user: int, samples: list[int], asked: Asked, extra: dict[str, Any]
    ) -> Answer:
        """One request for these samples; a server may answer with the first of them alone."""
        from openai import BadRequestError, UnprocessableEntityError

        sampling, greedy = asked.sampling, samples == [GREEDY]
        try:
            raw = self.client.chat.completions.with_raw_response.create(
                model=self.policy.model,
                messages=[{"role": "user", "content": sent}],
                n=len(samples),
                max_tokens=sampling.max_new_tokens,
                temperature=0.0 if greedy else sampling.temperature,
                top_p=1.0 if greedy else sampling.top_p,
                seed=derive_seed(sampling.seed, asked.stream, user, samples[0]) % 2**31,
                extra_body=extra,
            )
        except (BadRequestError, UnprocessableEntityError):
            if len(samples) == 1:
                raise
            self.at_once = 1  # it may be `n` that it refuses
            return self._ask(sent, user, samples[:1], asked, extra)
        with reading(raw):
            completion = raw.parse()
            texts = [choice.message.content or "" for choice in completion.choices]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("a content that is no text")
        given = samples[: len(texts)]
        if not given:
            raise UserError(f"{self.server.url}: {self.policy.model} gave an answer without a text")
        if len(given) < len(samples):
            self.at_once = len(given)
        self._count(completion, raw.retries_taken)
        return Answer(given, completion)

    def _count(self, completion: "ChatCompletion", retries: int) -> None:
        usage = self.usage
        with self.counting:
            usage.requests += 1
            usage.retries += retries
            usage.samples_per_request = max(usage.samples_per_request, len(completion.choices))
            usage.prompt_tokens += _counted(completion, "prompt_tokens")
            usage.completion_tokens += _counted(completion, "completion_tokens")

    def _written(self, sent: str, user: int, answers: list[Answer]) -> list[Written]:
        """The texts in these answers, their tokens counted by the tokenizer here."""
        self._check_template(sent, answers[0])
        encode = self.policy.local.tokenizer
        texts = [
            (sample, _storable(choice.message.content or ""), choice.finish_reason == "stop")
            for answer in answers
            for sample, choice in zip(answer.samples, answer.completion.choices, strict=False)
        ]
        return [
            Written(
                user,
                sample,
                text,
                len(encode(text, add_special_tokens=False)["input_ids"]),
                finished,
            )
            for sample, text, finished in texts
        ]

    def _check_template(self, sent: str, answer: Answer) -> None:
        """UserError when the server has read other tokens than training will."""
        told = _counted(answer.completion, "prompt_tokens")
        here = len(self.policy.local.encode_prompt(sent))
        if self.engine in COUNTS_WHOLE_PROMPTS and told not in (0, here):
            raise UserError(
                f"{self.server.url}: {self.policy.model} reads a prompt as {told} "
                f"tokens, policy.model as {here}: they must be the same LLM, with the same chat "
                "template"
            )


def _storable(text: str) -> str:
    """The text with halves of characters, which JSON can hold and no file can, as "?"."""
    return text.encode("utf-8", "replace").decode()


def _counted(completion: "ChatCompletion", name: str) -> int:
    """Tokens as the server counts them; 0 where it does not say, as some servers do not."""
    number = getattr(completion.usage, name, 0)
    return number if isinstance(number, int) else 0
