"""The role of a weight or a node in its model, by the scope that the exporter has written into its name."""

from __future__ import annotations

import re

from parity.reports.mutation.graphs import Graph

_ROLES = (
    ("table of boxes", r"[xyhw]_position_embeddings"),
    ("table of token types", r"token_type|type_embed"),
    ("table of distances", r"relative_attention_bias|relative_position_bias|rel_embeddings"),
    ("table of positions", r"position_embedding|wpe|embed_positions|pos_embed"),
    ("table of words", r"word_embedding|wte|embed_tokens|shared|token_embedding|tok_embeddings"),
    ("class token", r"cls_token|class_embedding"),
    ("norm", r"norm|ln_|layer_?norm|\bln\b"),
    ("cross-attention", r"crossattention|encoder_attn|EncDecAttention"),
    ("merged query, key and value", r"c_attn|query_key_value|wqkv|qkv"),
    ("query", r"query|q_proj|q_lin|/q/|\.q\."),
    ("key", r"/key|\.key|k_proj|k_lin|/k/|\.k\."),
    ("value", r"/value|\.value|v_proj|v_lin|/v/|\.v\."),
    (
        "head",
        r"lm_head|classifier|cls/|cls\.|predictions|qa_outputs|pooler|vocab|/head|head\.|text_projection|visual_proj",
    ),
    ("patches", r"patch|conv1|conv2|dwconv|projection|depthwise"),
    ("attention output", r"attention|attn|out_proj|o_proj|out_lin"),
    ("feed-forward", r"mlp|fc\d|c_fc|intermediate|ffn|lin1|lin2|dense|_proj|wi|wo|output|pwconv"),
)


def role_of_scope(scope: str) -> str:
    """The role that a name contains; `graph` if it contains none."""
    for role, pattern in _ROLES:
        if re.search(pattern, scope, re.IGNORECASE):
            return role
    return "graph"


def scope_of(graph: Graph, tensor: str) -> str:
    """The name of a weight; if the exporter generated it, the name of the node that reads it."""
    if not tensor.startswith("onnx::"):
        return tensor
    readers = graph.readers(tensor)
    return readers[0].name if readers else tensor


def role_of_weight(graph: Graph, tensor: str) -> str:
    """The role of a weight, and whether it is a bias, a scale or a matrix."""
    role = role_of_scope(scope_of(graph, tensor))
    if role.startswith(("table", "class")):
        return role
    axes = len(graph.tensors[tensor].dims)
    if axes != 1:
        return f"{role} weight"
    return f"{role} bias" if "bias" in tensor else f"{role} scale"


def side_of(scope: str) -> str:
    """The part of the model that a scope belongs to: encoder, decoder, cross-attention, text or vision."""
    lower = scope.lower()
    if re.search(r"crossattention|encoder_attn|encdecattention", lower):
        return "cross-attention"
    if "decoder" in lower:
        return "decoder"
    for word in ("vision", "text"):
        if f"{word}_model" in lower:
            return word
    return "encoder" if "encoder" in lower else "model"
