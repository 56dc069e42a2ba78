"""Chat formats, their tokenizers and a tiny Llama as the hub has them, but made on the spot: nothing is downloaded."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import GemmaTokenizer, LlamaConfig, LlamaForCausalLM, LlamaTokenizer, PreTrainedTokenizerFast

# As Llama 2's tokenizer has it (without the branch for a system prompt's wrong order).
CHAT = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = false %}{% endif %}{% for message in loop_messages %}\
{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!'\"[]<>|_{}()/:;-\n"
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
SPLIT += r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
EACH = "{% for m in messages %}"
ASK = "{% if add_generation_prompt %}"
CHATML = (
    EACH + "{% if loop.first and m.role != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    + ASK + "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)  # fmt: skip
LLAMA3 = (
    EACH + "{{ (bos_token if loop.first else '') + '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' "
    "+ m.content | trim + '<|eot_id|>' }}{% endfor %}"
    + ASK + "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)  # fmt: skip
LLAMA2 = (
    "{% set told = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' if messages[0].role == 'system' else '' %}"
    + EACH
    + "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + ((told if loop.index0 < 2 else '') "
    "+ m.content).strip() + ' [/INST]' }}{% elif m.role == 'assistant' %}"
    "{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}" + EACH + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' "
    "+ m.content | trim + '<end_of_turn>\\n' }}{% endfor %}" + ASK + "{{ '<start_of_turn>model\\n' }}{% endif %}"
)
PHI3 = (
    EACH + "{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
    + ASK + "{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)  # fmt: skip


def _bytes(special, split=None, opens=None, **named):
    """A byte-level tokenizer with merges of its own; opens: the token that its post-processor puts in front."""
    bpe = Tokenizer(BPE())
    bpe.decoder = decoders.ByteLevel()
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    first = pre_tokenizers.Split(Regex(split), "isolated") if split else pre_tokenizers.Digits(individual_digits=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([first, whole])
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(
        ["Where was the author born? She was born in Setubal, and wrote there. user assistant"], trainer
    )
    if opens:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{opens} $A", special_tokens=[(opens, special.index(opens))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **named)


def _pieces(kind, special, **named):
    """A sentencepiece-like tokenizer over single characters and bytes."""
    vocab = {t: k for k, t in enumerate(special)}
    vocab |= {f"<0x{b:02X}>": len(vocab) + b for b in range(256)}
    vocab |= {c: len(vocab) + k for k, c in enumerate("▁" + LETTERS)}
    return kind(vocab=vocab, merges=[], **named)


def _phi3():
    tokenizer = _pieces(LlamaTokenizer, ["<unk>", "<s>", "</s>"], eos_token="<|endoftext|>", chat_template=PHI3)
    turns = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>")  # each takes the line's end after it, as Phi-3's
    tokenizer.add_tokens([AddedToken(t, rstrip=t != "<|endoftext|>", normalized=False, special=True) for t in turns])
    return tokenizer


FORMATS = {
    "SmolLM2": lambda: _bytes(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], bos_token="<|im_start|>",
                              eos_token="<|im_end|>", chat_template=CHATML),
    "Qwen2": lambda: _bytes(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], split=SPLIT, eos_token="<|im_end|>",
                            chat_template=CHATML),
    "Llama-3": lambda: _bytes(["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
                              split=SPLIT, opens="<|begin_of_text|>", bos_token="<|begin_of_text|>",
                              eos_token="<|eot_id|>", chat_template=LLAMA3),
    "Llama-2": lambda: _pieces(LlamaTokenizer, ["<unk>", "<s>", "</s>"], chat_template=LLAMA2),
    "Gemma": lambda: _pieces(GemmaTokenizer, ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
                             extra_special_tokens=["<start_of_turn>", "<end_of_turn>"], chat_template=GEMMA),
    "Phi-3": _phi3,
}  # fmt: skip


def llama():
    """Llama 2's tokenizer class, chat template, begin, end and byte tokens, and a Llama with its layout, all small."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!'\"[]/:;-"
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{b:02X}>": 3 + b for b in range(256)}
    vocab |= {c: len(vocab) + k for k, c in enumerate("▁" + letters)}
    tokenizer = LlamaTokenizer(vocab=vocab, merges=[], chat_template=CHAT)
    shape = dict(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=len(vocab)
    )
    return LlamaForCausalLM(LlamaConfig(**shape, max_position_embeddings=4096)), tokenizer
