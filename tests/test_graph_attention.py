"""Attention on the graph engine against Keras: scores, masks of every kind, and several axes."""

import pytest

from layerprobe.errors import UnavailableError
from layerprobe.probe import Probe

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*does not support masking")]

keras = pytest.importorskip("keras")
from graph_reference import RANDOM, assert_outputs_like_keras  # noqa: E402

L = keras.layers
QUERY = RANDOM.normal(size=(6, 5, 4)).astype("float32")
VALUE = RANDOM.normal(size=(6, 7, 4)).astype("float32")
KEY = RANDOM.normal(size=(6, 7, 4)).astype("float32")
ALLOWED = RANDOM.uniform(size=(6, 5, 7)) > 0.4
QUERY[0, 3:], QUERY[1, :2], QUERY[2] = 0, 0, 0
VALUE[0, 4:], VALUE[1, :3], VALUE[3] = 0, 0, 0
KEY[2, 1] = 0


def both(layer, *arguments, **keywords):
    return layer(*arguments, return_attention_scores=True, **keywords)


ATTENTION = {
    "attention": lambda q, v, k, m: L.Attention()([q, v]),
    "attention causal": lambda q, v, k, m: L.Attention()([q, v, k], use_causal_mask=True),
    "attention concat": lambda q, v, k, m: L.Attention(score_mode="concat")([q, v, k]),
    "attention concat scale": lambda q, v, k, m: L.Attention(True, score_mode="concat")([q, v]),
    "attention scale": lambda q, v, k, m: both(L.Attention(use_scale=True, dropout=0.3), [q, v, k]),
    "additive": lambda q, v, k, m: L.AdditiveAttention()([q, v, k]),
    "additive plain": lambda q, v, k, m: both(
        L.AdditiveAttention(use_scale=False), [q, v], use_causal_mask=True
    ),
    "heads": lambda q, v, k, m: L.MultiHeadAttention(2, 3)(q, v),
    "heads allowed": lambda q, v, k, m: L.MultiHeadAttention(2, 3)(q, v, attention_mask=m),
    "heads causal": lambda q, v, k, m: L.MultiHeadAttention(2, 3)(q, v, use_causal_mask=True),
    "heads causal allowed": lambda q, v, k, m: both(
        L.MultiHeadAttention(2, 3, dropout=0.2), q, v, attention_mask=m, use_causal_mask=True
    ),
    "heads by name": lambda q, v, k, m: L.MultiHeadAttention(1, 3, value_dim=2)(query=q, key=k, value=v),
    "heads key": lambda q, v, k, m: L.MultiHeadAttention(2, 3, use_bias=False)(q, value=v, key=k),
    "heads output": lambda q, v, k, m: L.MultiHeadAttention(2, 3, output_shape=(2, 3))(q, v),
    "heads output size": lambda q, v, k, m: L.MultiHeadAttention(2, 3, output_shape=6)(q, v),
    "heads scores": lambda q, v, k, m: both(L.MultiHeadAttention(2, 3, value_dim=5), q, v, k),
    "grouped": lambda q, v, k, m: L.GroupQueryAttention(3, 4, 2)(q, v),
    "grouped allowed": lambda q, v, k, m: L.GroupQueryAttention(3, 2, 2)(q, v, k, attention_mask=m),
    "grouped scores": lambda q, v, k, m: both(
        L.GroupQueryAttention(3, 4, 1, use_bias=False), q, v, use_causal_mask=True
    ),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", ATTENTION)
def test_attention_equals_keras(case, masked, tmp_path):
    inputs = [keras.Input(a.shape[1:], name=n) for n, a in (("q", QUERY), ("v", VALUE), ("k", KEY))]
    allowed = keras.Input(ALLOWED.shape[1:], name="m", dtype="bool")
    q, v, k = (L.Masking()(x) for x in inputs) if masked else inputs
    made = keras.tree.flatten(ATTENTION[case](q, v, k, allowed))
    outputs = made
    if len(made[0].shape) == 3:  # Whether a mask goes on shows in what reads it.
        outputs = [*made, L.GRU(2)(made[0])]
    model = keras.Model(
        [*inputs, allowed], [*outputs, L.Dense(1)(inputs[2]), keras.ops.cast(allowed, "float32")]
    )
    assert_outputs_like_keras(model, tmp_path / "m.keras", [QUERY, VALUE, KEY, ALLOWED])


@pytest.mark.parametrize("axes", [None, (1, 2), (2,), -2])
def test_attention_over_several_axes_equals_keras(axes, tmp_path):
    x, y = keras.Input((3, 5, 4), name="x"), keras.Input((3, 5, 4), name="y")
    layer = L.MultiHeadAttention(2, 3, attention_axes=axes)
    model = keras.Model([x, y], both(layer, x, y))
    arrays = [RANDOM.normal(size=(2, 3, 5, 4)).astype("float32") for _ in range(2)]
    assert_outputs_like_keras(model, tmp_path / "m.keras", arrays)


def test_a_transformer_block_equals_keras(tmp_path):
    x = keras.Input((5, 4), name="x")
    y = x
    for _ in range(2):
        y = L.LayerNormalization()(y + L.MultiHeadAttention(2, 4)(y, y, use_causal_mask=True))
        y = L.LayerNormalization()(L.Add()([y, L.Dense(4)(L.Dense(8, activation="gelu")(y))]))
    model = keras.Model(x, L.GlobalAveragePooling1D()(y))
    assert_outputs_like_keras(model, tmp_path / "m.keras", [QUERY])


def test_a_mask_that_keras_takes_off_while_others_need_it_goes_to_keras(tmp_path):
    x = keras.Input((5, 4), name="x")
    y = L.Masking()(x)
    added = L.Add()([y, L.MultiHeadAttention(2, 4, name="heads")(y, y)])
    keras.Model(x, L.LSTM(2, name="last")(added)).save(tmp_path / "m.keras")
    with pytest.raises(UnavailableError, match=r"Add \(layer .*mask a MultiHeadAttention takes off"):
        Probe(tmp_path / "m.keras", ["last"], engine="graph")(QUERY)
    Probe(tmp_path / "m.keras", ["heads"], engine="graph")(QUERY)
