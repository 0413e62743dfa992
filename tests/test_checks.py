"""The exercise checkers: each usual mistake gets its hint, and other ways to write the right answer pass.

An answer is the solution that the notebook prints, changed: what stands there, what a reader writes instead
(more pairs if it takes several), and a part of the hint, or None where the answer is still right.
"""

from __future__ import annotations

import inspect

import pytest
import torch
from test_solutions import CHECKERS, EXERCISES, call_of, code_of, namespace

from nstlib.course import checks
from nstlib.nets.u2net import RSU

# Checker, what stands there, what takes its place (and further pairs), the hint.
CHANGES: list[tuple[str | None, ...]] = [
    ("q01_1", "permute(2, 0, 1)[None]", "reshape(1, 3, *array.shape[:2])", "move the axes by permute"),
    ("q01_1", " / 255", "", "between 0 and 1: divide by 255"),
    ("q01_1", " / 255", " / 127.5 - 1", "not between -1 and 1"),
    ("q01_1", "2, 0, 1", "2, 1, 0", "rows and columns have changed places"),
    ("q01_1", "[None]", "", "the batch axis is missing"),
    ("q01_1", "[None]", "[None].flip(1)", "is right, given 4 × 6 × 3 numbers"),
    ("q01_1", "torch.from_numpy(array)", "torch.tensor(array.astype(float))", None),
    ("q01_2", "rows @ rows.T", "rows.T @ rows", "that compares positions; the Gram matr"),
    ("q01_2", "rows.T", "rows.T / rows.shape[1]",
     "you divide by H·W; equation (1) of paper A is a plain sum"),
    ("q01_2", "rows.T", "rows.T / rows.numel()", "you divide by C·H·W"),
    ("q01_2", "rows @ rows.T", "torch.cov(rows) * rows.shape[1]", "is right, given"),
    ("q01_2", "rows.T", "no_idea", "your code stopped with NameError: name 'no_idea' is not defined"),
    ("q01_2", "rows @ rows.T", "torch.einsum('im,jm->ij', rows, rows)", None),
    ("q01_3", "[:, order]", "", "nothing has moved"),
    ("q01_3", ".reshape(features.shape)", "", "the shape must stay (3, 6, 5), yours is (3, 30)"),
    ("q01_3", "features.flatten(1)[:, order]",
     "torch.stack([row[torch.randperm(len(row))] for row in features.flatten(1)])",
     "every channel must be shuffled by the SAME permutation"),
    ("q01_3", "features.flatten(1)", "features.flatten(1).roll(1, 0)",
     "each channel must keep its own values"),
    ("q01_3", "order = ", "order = [-1, *range(1, features[0].numel() - 1), 0] or ", "only a few positions"),
    ("q01_3", "[:, order]", ".flip(1)", None),
    ("q01_4", "c * (c + 1) // 2", "c**2", "C² counts every pair twice"),
    ("q01_4", "c + 1", "c - 1", "you left out the diagonal"),
    ("q01_4", "// 2", "// 2 + (b == 2)", "wrong for relu2_1: how many entries"),
    ("q01_4", "// 2", "// 2 if b < 3 else ...", "not answered yet; give a number for each of relu1_1"),
    ("q01_4", "start=1)}", "start=1)} | {'relu4_2': 131328}", None),
    ("q01_5", "4 *", "2 *", "autograd has 2 times yours; F is twice in G = F Fᵀ"),
    ("q01_5", "4 *", "-4 *", "the sign is wrong"),
    ("q01_5", "4 *", "1 *", "autograd has 4 times yours"),
    ("q01_5", "(features @ features.T - target_gram) @ features",
     "features @ features.T @ features - 4 * target_gram @ features", None),
    ("q01_6", "alpha * content_loss + beta", "beta * content_loss + alpha", "alpha belongs to the content"),
    ("q01_6", "sum()", "mean()", "sums, not means"),
    ("q01_6", "(features - content)", "(features @ features.T - content @ content.T)",
     "not by Gram matrices"),
    ("q01_6", "square().sum()", "norm()", "square the differences"),
    ("q02_1", " + o", "", "you forgot the biases, one for each ou"),
    ("q02_1", "k * k", "k", "a filter is a square"),
    ("q02_1", "k * i", "k", "weights for all channels that come in"),
    ("q02_2", "(kernel - 1) * step", "(kernel - 1) * step * stride",
     "each of the 11 layers adds (kernel - 1"),
    ("q02_2", "return field, step", "return field, sum(s for _, s in layers)", "the product of all strides"),
    ("q02_2", "return field, step", "return field", "give back 2 values of shape (2,)"),
    ("q02_3", '"conv1_2", "conv2_1", "conv2_2", "conv3_1"', '"conv2_1", "conv3_1", "conv4_1", "conv5_1"',
     "these are the five BLOCKS of papers B and D"),
    ("q02_3", ', "conv3_1"]', "]", "style: count the convolutions from the input"),
    ("q02_3", '["conv3_1", "conv3_2"]', '["conv4_2"]',
     "the style layers are right; content: the fifth and the sixth convolution"),
    ("q02_3", "conv", "relu", "the names are conv1_1, conv1_2"),
    ("q02_3", '["conv3_1", "conv3_2"]', '{"conv3_2", "conv3_1"}', None),
    ("q02_4", " / sum(terms)", "", "divide by the sum of all terms"),
    ("q02_4", "[w * x", "[w", "those are the shares of the weights"),
    ("q02_4", "[w * x", "[x", "the weights are missing"),
    ("q02_4", "[term / sum(terms) for term in terms]", "torch.tensor(terms) / sum(terms)", None),
    ("q02_5", "k**4, beta / k**2", "k**2, beta", "a Gram matrix grows by k²"),
    ("q02_5", "beta / k**2", "beta * k**2", "the new weight must undo what style gained"),
    ("q02_5", "beta / k**2", "beta / k**4", "content grows as well"),
    ("q02_6", "= {", "= {f'conv_{i}': f'conv{i}_1' for i in range(1, 6)} or {",
     "one would expect that, but the tutorial counts"),
    ("q02_6", '"conv3_1"', '"conv5_1"', "one would expect that"),
    ("q02_6", "conv1_1", "relu1_1", "conv1_2", "conv2_1", "wrong for conv_1, conv_2: count the convolutions"),
    ("q03_1", "-0.02", "0.02", "the sign is wrong"),
    ("q03_1", " / (1 - 0.9**t)", "", " / (1 - 0.999**t)", "", "step 1 is too long: divide m by 1 - 0.9^t"),
    ("q03_1", "m_hat / (v_hat.sqrt() + 1e-8)", "gradient", "is right, given"),
    ("q03_2", "torch.autograd.grad(gradient @ v, x)[0]", "gradient",
     "this is the gradient, not its derivative"),
    ("q03_2", "torch.autograd.grad(gradient @ v, x)[0]", "gradient * v",
     "this is the gradient times v, entry by"),
    ("q03_2", "gradient @ v", "gradient.sum()", "this is H times ones: where does v come in?"),
    ("q03_2", "torch.autograd.grad(gradient @ v, x)[0]",
     "torch.autograd.functional.hessian(function, x) @ v", None),
    ("q03_3", "change <= 0 or", "True or", "a worse picture is taken if u is below"),
    ("q03_3", " or u < math.exp(-change / temperature)", "", "a worse picture is taken if u is below"),
    ("q03_3", "change <= 0 or u <", "u >", "is always taken"),
    ("q03_3", "change <= 0 or u < math.exp(-change", "u < math.exp(-max(change, 0)", None),
    ("q03_4", "1 if", "2 if", "else 2 if max(b)", "else 1 if max(b)", "smaller is better"),
    ("q03_4", "else 0", "else 1 + (sum(a) > sum(b))", "a lower mean is not enough"),
    ("q03_4", "else 0", "else 1 + (min(a) > min(b))", "one lucky seed"),
    ("q03_5", "w * channels", "w / channels", "the wrong way round"),
    ("q03_5", "channels**2", "channels", "its SQUARED difference"),
    ("q03_5", " * channels**2", "", "is right, given"),
    ("q03_6", "a / b", "a * b", "D divides by it"),
    ("q03_6", "a / b", "a * len(m) / sum(m)", "one number for all layers cannot stand for constants"),
    ("q03_6", "a / b", "a / sum(m)", "cannot stand for their sum"),
    ("q03_6", "a / b", "a / b / sum(x / y for x, y in zip(w, m))", "these add up to 1"),
    ("q03_6", "[a / b for a, b in zip(w, m)]", "torch.tensor(w) / torch.tensor(m)", None),
    ("q03b_1", "return sizes", "return [round(smallest * 2 ** (k / 2)) for k in range(len(sizes))]",
     "the last size must be the picture's own"),
    ("q03b_1", "return sizes", "return [round(longest / 2**k) for k in reversed(range(len(sizes)))]",
     "not by 2"),
    ("q03b_1", "return sizes", "return sizes[::-1]", "the smallest comes first"),
    ("q03b_1", "return sizes", "return sizes[1:]", "one too few"),
    ("q03b_1", "return sizes", "return [round(sizes[0] / 2**0.5), *sizes]", "one too many"),
    ("q03b_2", "[0.299, 0.587, 0.114]", "[1 / 3] * 3", "the eye sees green best"),
    ("q03b_2", "content + ((result - content)", "result + ((content - result)", "the other way round"),
    ("q03b_2", "(result - content)", "result", "is still in it"),
    ("q03b_3", " / mask.square().sum()", "", "not divided yet"),
    ("q03b_3", "mask.square().sum()", "mask.numel()", "you divide by H·W"),
    ("q03b_3", "mask.square()", "mask", "you divide by the sum of m;"),
    ("q03b_3", "rows.T", "features.flatten(1).T", "mask.square()", "mask", "mask the features BEFORE"),
    ("q03b_4", " / sum(r.shape[1] for r in rows)", "", "divide by the positions"),
    ("q03b_4", "r.T", "r.T / r.shape[1]", "sum(r.shape[1] for r in rows)", "len(rows)", "a small tile count"),
    ("q03b_4", "r.T", "r.T / r.shape[1]", " / sum(r.shape[1] for r in rows)", "", "grows with their number"),
    ("q03b_5", "trusted * ", "", "where does c come in"),
    ("q03b_5", "trusted * (x - moved)", "(trusted * (x - moved))", "outside of the square"),
    ("q03b_5", "mean()", "sum() / (3 * trusted.sum())", "not over the trusted ones"),
    ("q03b_5", " ** 2", ".abs()", "not the absolute value"),
    ("q04_1", "(2, 3)", "(0, 2, 3)", "that is batch normalization"),
    ("q04_1", "(2, 3)", "(1, 2, 3)", "do not average over channels"),
    ("q04_1", "scale.view(-1, 1, 1) * ", "", " + shift.view(-1, 1, 1)", "", "scale and shift"),
    ("q04_1", "correction=0, ", "", "divided by H·W"),
    ("q04_1", "(x - mean)", "(x - mean).float()", None),
    ("q04_2", "(k[0], k[1] + k[2]), (k[0] + k[1], k[2])", "(k[0] + k[1], k[2]), (k[0], k[1] + k[2])",
     "in the other order"),
    ("q04_2", "k[1] + k[2]", "(k[1] + k[2]) / 2", "k[0] + k[1]", "(k[0] + k[1]) / 2", "without a mean"),
    ("q04_2", "k[0] + k[1], k[2]", "k[0], k[1] + k[2]", "then its right neighbor"),
    ("q04_2", "(k[0], k[1] + k[2]), (k[0] + k[1], k[2])",
     "torch.stack([k[0], k[1] + k[2], k[0] + k[1], k[2]]).view(2, 2)", None),
    ("q04_3", "psi[0].numel()", "psi[0].numel(); G = G.mean(0)", "its own Gram matrix"),
    ("q04_3", " / psi[0].numel()", "", "is not divided"),
    ("q04_3", "psi[0].numel()", "psi.shape[2]", "divided by H·W"),
    ("q04_3", "mean()", "sum()", "not sums"),
    ("q04_3", "return (", "return weight * (", "+ weight * ", "+ ", "belongs to the style"),
    ("q04_3", "psi = of_y", "psi = of_x", "not the contents'"),
    ("q04_3", "psi @ psi.mT", "torch.einsum('ncm,ndm->ncd', psi, psi)", None),
    ("q04_4", "(content, style)", "(style, content)", "content and style are exchanged"),
    ("q04_4", "d_s * (content", "(content", " / d_c + m_s", " / d_c", "are still to come"),
    ("q04_4", "d_s * (content", "(content", "its deviation is missing"),
    ("q04_4", "return d_s *", "return d_s**2 *", "/ d_c", "/ d_c**2", "deviations, not variances"),
    ("q04_4", "style, (1, 2), keepdim=True", "style", "each channel has its own"),
    ("q04_4", "keepdim", "correction=0, keepdim", None),
    ("q04_4", "return d_s *", "return (d_s**2 + 1e-5).sqrt() *", "/ d_c", "/ (d_c**2 + 1e-5).sqrt()", None),
    ("q04_5", "floor", "ceil", ") + 1", ")", "both take the same time"),
    ("q04_5", ") + 1", ")", "is right, given"),
    ("q04_5", "(optimization - one_pass)", "optimization", "passes take time, too"),
    ("q05_1", "w = w / ", "norm = ", "not demodulated"),
    ("q05_1", " * style[None, :, None, None]", "", "the style is missing"),
    ("q05_1", "w / (w.square()", "w / (weight.square()", "AFTER the style"),
    ("q05_1", ".sqrt()", "", "ROOT of the sum"),
    ("q05_1", "sum((1, 2, 3), keepdim=True)", "sum()", "OUTPUT channel has a norm"),
    ("q05_1", "style[None, :", "s[:1, :", "takes the first one's for all"),
    ("q05_2", "return x + ", "return ", "the features themselves are missing: t"),
    ("q05_2", "weight[:, None, None, None] * ", "", "the weight is missing."),
    ("q05_2", "convs[1](norms[1](convs[0](norms[0](x))))", "norms[1](convs[1](norms[0](convs[0](x))))",
     "normalize first, then convolve"),
    ("q05_2", "return x", "return x * (1 - weight[:, None, None, None])", "the features stay whole"),
    ("q05_2", "weight[:, None, None, None]", "weight[0]", "its own weight"),
    ("q05_2", "convs[1](norms[1](convs[0](norms[0](x))))", "convs[0](norms[0](x))", "that is one half"),
    ("q05_2", "return x", "return x.float()", None),
    ("q05_3", "center + psi * (w - center)", "psi * w", "draws toward 0"),
    ("q05_3", "center + psi * (w - center)", "w + psi * (center - w)", "turned around"),
    ("q05_3", "(w - center)", "w", "FROM the center"),
    ("q05_3", "return center + ", "return ", "added again"),
    ("q05_3", "center + psi * (w - center)", "torch.lerp(center.expand_as(w), w, psi)", None),
    ("q05_4", "(face, other", "(other, face", "turned around"),
    ("q05_4", "return", "face, other, kept = other, face, face.shape[1] - kept; return", "LAST codes"),
    ("q05_4", "return", "kept = kept - 1; return", "one off: yours keeps one code of the face too few"),
    ("q05_4", "return", "kept = kept + 1; return", "one off: yours keeps one code of the face too many"),
    ("q05_4", "return", "face[:, kept:] = other[:, kept:]; return face;", "work on a copy"),
    ("q05_5", "amin(1", "amin(0", "softmax(1)", "softmax(0)", "of the PICTURE divides one vote"),
    ("q05_5", "amax(0)", "amax(1)", "of the PORTRAIT keeps its largest share"),
    ("q05_5", "f - center", "f - f.mean(0)", "from the PORTRAIT's mean"),
    ("q05_5", "f - center", "f", "has to be subtracted from both"),
    ("q05_5", " / h", "", "the bandwidth is missing"),
    ("q05_5", "mean().log()", "log().mean()", "the mean comes first"),
    ("q05_5", "return -", "return ", "the sign"),
    ("q05_5", "center = ",
     "from nstlib.losses import contextual_loss as library; "
     "return library(x.T[None, ..., None], y.T[None, ..., None], h); center = ", None),
    ("q05_6", "(1 - cosine)", "cosine", "1 minus it"),
    ("q05_6", "torch.nn.functional.cosine_similarity(made, plain)", "(made * plain).sum(1)",
     "by both lengths"),
    ("q05_6", "norm()", "norm() ** 2", "not squared"),
    ("q05_6", "sum(tensor.norm()", "torch.norm(torch.cat([tensor.flatten()", "tensors)", "tensors]))",
     "EACH tensor"),
    ("q05_6", "w_reg *", "w_reg / len(tensors) *", "not averaged"),
    ("q05_6", "return", "w_id = w_reg = 1; return", "the two weights are missing"),
    ("q05_6", "return", "w_id, w_reg = w_reg, w_id; return", "swapped"),
    ("q05_7", "amin(1)", "amin(0)", "each KNOWN code looks for"),
    ("q05_7", ".amin(1)", "", "only the nearest drawn code"),
    ("q05_7", ".square()", "", "the distance is squared"),
    ("q05_7", "mean()", "sum()", "divided by M"),
    ("q05_7", "mean()", "mean() / known.shape[1]", "a SUM over the numbers"),
    ("q05_8", " / shares.sum()", "", "sum to 1"),
    ("q05_8", "return", "fused = codes.mean(0); return", "yours is the plain mean"),
    ("q05_8", "if keep_colors", "if False", "the last codes are the face's"),
    ("q05_8", "7", "8", "yours begin later"),
    ("q05_8", "7", "6", "yours begin earlier"),
    ("q05_8", "[fused[:7], face[7:]]", "[face[:7], fused[7:]]", "the structure is the style's"),
    ("q05_9", "first:", ":first", "the FIRST codes stay the style's"),
    ("q05_9", "pairs = ", "alpha = 1 - alpha; pairs = ", "alpha is turned around"),
    ("q05_9", "pairs = ", "alpha = 1; pairs = ", "alpha is missing"),
    ("q05_9", "first:", "first + 1 :", "one off"),
    ("q05_9", "first:", ":", "all codes are mixed"),
    ("q06_1", "2 ** (n - 1) if dilated", "1 if dilated", "d doubles from block to block"),
    ("q06_1", "1 + 2, 1", "1, 1", "rebnconvin, is missing"),
    ("q06_1", "side + step, 2 * step", "side, 2 * step", "a pooling of 2 × 2"),
    ("q06_1", "2 if n == height else 1", "1", "it reaches twice as far"),
    ("q06_2", "dim=1", "dim=0", "the COLUMNS sum to one"),
    ("q06_2", "scores.masked_fill(~same, -torch.inf)", "(scores * same)", "a score of 0 is no score"),
    ("q06_2", ".masked_fill(~same, -torch.inf).softmax(dim=1)", ".softmax(1) * same",
     "mask BEFORE the softmax"),
    ("q06_2", ".masked_fill(~same, -torch.inf)", "", "the regions are missing"),
    ("q06_2", "query.T @ key", "query.T @ key / len(query) ** 0.5", "no root of C here"),
    ("q06_3", " / features.numel()", "", "(9) divides it by C·H·W"),
    ("q06_3", "sum() / features.numel()", "mean()", "not by the number of"),
    ("q06_3", "features.numel()", "features.numel() ** 2", "you divide each Gram matrix"),
    ("q06_3", "square().sum()", "abs().sum()", "(9) squares"),
    ("q06_3", "(f * m)", "f", "the masks are missing"),
    ("q06_3", "(f * m)", "(f * m.sqrt())", "mask BOTH factors"),
    ("q06_4", "x.argsort().argsort()", "torch.arange(len(x))", "each value goes where its rank is"),
    ("q06_4", "argsort() + 1", "argsort()", "one rank too low"),
    ("q06_4", "x.argsort().argsort() + 1", "len(x) - x.argsort().argsort()", "turned around"),
    ("q06_4", "return", "return (x - x.mean()) / x.std() * reference.std() + reference.mean();",
     "mean and deviation only"),
    ("q06_5", "photos, unpainted)", "photos, painted)", "the artwork made a photo"),
    ("q06_5", "encode(painted)", "encode(unpainted)", "as printed D_S gets I_c^T"),
    ("q06_5", "(photos, unpainted)", "(encode(photos), encode(unpainted))", "pictures, not features"),
    ("q06_5", "return F.", "return -F.", "+ F.", "- F.", "you give what it lowers"),
    ("q06_5", "(photos, unpainted)", "(artworks, painted)", "artworks are for D_T"),
    ("q07_1", "10 * ", "-10 * ", "the sign is turned"),
    ("q07_1", "(1 /", "(255**2 /", "not 255"),
    ("q07_1", "log10", "log", "natural logarithm"),
    ("q07_1", "10 * ", "", "ten decibels are one"),
    ("q07_1", "10 * ", "20 * ", "not the square of that"),
    ("q07_1", "x - y", "x.float() - y.float()", None),
    ("q07_2", ".mean()\n", ".sum() / (len(x) - 1)\n", "correction=0", "correction=1", "you divide by n - 1"),
    ("q07_2", "light * ", "", "of the means, is missing"),
    ("q07_2", "(2 * covariance + c2)", "(2 * covariance + c2).abs()", "leave its sign"),
    ("q07_3", ".sqrt()", "", "their roots are compared"),
    ("q07_3", "((mean_a - mean_b) ** 2).sum() + ", "", "the means are missing"),
    ("q07_3", " + ((variance_a.sqrt() - variance_b.sqrt()) ** 2).sum()", "", "the spreads differ, too"),
    ("q07_3", "return ", "return (", "sum()\n", "sum()) ** 0.5\n", "the SQUARED distance"),
    ("q07_3", "sum()", "mean()", "a sum over dimensions, not a mean"),
    ("q07_3", "variance_a.sqrt() - ", "variance_a.sqrt() + ", "the root is subtracted"),
    ("q07_4", "(k.sum() - k.trace()) / (n * (n - 1))", "k.mean()", "no pair with itself"),
    ("q07_4", "(n * (n - 1))", "n**2", "n (n - 1) values are left"),
    ("q07_4", "2 * k_ab", "k_ab", "count twice"),
    ("q07_4", "k_ab.mean()", "(without_diagonal(k_ab) if len(k_aa) == len(k_bb) else k_ab.mean())",
     "between the sets all pairs count"),
    ("q07_5", "return ", "return True or ", "voters would be"),
    ("q07_5", "return ", "return False and ", "rounded to two decimals"),
    ("q07_5", "return ", "return percent > 100 or ", "would be more than all 35 voters"),
    ("q07_6", ".mean()", ".mean() / 2 + 0.5", "the share in opposite order"),
    ("q07_6", ".mean()", ".mean() / 2", "counts once"),
    ("q07_6", "return",
     "a, b = (x.argsort().argsort().double() for x in (a, b)); "
     "return torch.corrcoef(torch.stack([a, b]))[0, 1];",
     "Spearman"),
    ("q07_6", "return", "return torch.corrcoef(torch.stack([a, b]))[0, 1];", "their order alone"),
    ("q07_7", "1 / (1 + np.exp(second - first))", "first / (first + second)", "take exp of them first"),
    ("q07_7", "second - first", "first - second", "the second one's"),
    ("q07_7", "1 / (1 + np.exp(second - first))", "np.exp(first - second)", "the odds"),
    ("q07_7", "1 / (1 + np.exp(second - first))", "float(first > second)", "Bradley and Terry's"),
]  # fmt: skip


@pytest.mark.parametrize("exercise", EXERCISES, ids=str)
def test_a_mistake_gets_its_hint_and_another_right_way_passes(exercise, capsys):
    chapter, place = exercise.checker.removeprefix("q0").split("_")
    names = namespace(exercise)
    for *changes, hint in [change[1:] for change in CHANGES if change[0] == exercise.checker]:
        code = code_of(exercise.solution)
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in code
            code = code.replace(old, new)
        exec(code, names)
        right = eval(call_of(exercise), names)
        out, err = capsys.readouterr()
        assert (right, err) == (hint is None, "")
        if right:
            assert out == f"✓ Exercise {chapter}.{place}: right.\n"
        else:
            assert out.startswith(f"✗ Exercise {chapter}.{place}: ")
            assert hint in out
            assert out.count("✗") == 1


def test_every_checker_is_tested_here_and_says_what_it_asks():
    mistakes = [change[0] for change in CHANGES if change[-1] is not None]
    assert all(mistakes.count(name) >= 3 for name in CHECKERS)
    assert all(inspect.getdoc(getattr(checks, name)) for name in CHECKERS)


def test_the_field_of_an_rsu_is_the_networks():
    def measured(height, dilated):
        """Which columns, being no numbers, make the bottom's middle none as well."""
        width = 1000
        block = RSU(height, 1, 1, 1, dilated).eval()
        found = {}
        block.get_submodule(f"rebnconv{height}").register_forward_hook(lambda _, __, y: found.update(y=y))
        x = torch.zeros(width, 1, 1, width)
        x[range(width), 0, 0, range(width)] = torch.nan
        with torch.no_grad():
            block(x)
        return int(found["y"][:, 0, 0, found["y"].shape[-1] // 2].isnan().sum())

    assert checks.q06_1(measured) is True


def gram(features):
    return features.flatten(1) @ features.flatten(1).T


@pytest.mark.parametrize("nothing", [None, ...])
def test_a_stub_is_not_answered_yet(capsys, nothing):
    assert checks.q01_2(lambda _: nothing) is False
    expected = "✗ Exercise 1.2: not answered yet; replace the dots by your own line.\n"
    assert capsys.readouterr().out == expected


def test_one_wrong_entry_and_one_wrong_case_are_found():
    def one_wrong_entry(features):
        answer = gram(features)
        answer[-1, 0] += 0.01
        return answer

    assert checks.q01_2(one_wrong_entry) is False
    assert checks.q01_2(lambda f: gram(f) if len(f) == 3 else gram(f).abs()) is False
    assert checks.q01_2(lambda f: gram(f) * float("nan")) is False


def test_an_answer_in_float32_is_judged_like_any_other():
    assert checks.q01_2(lambda f: gram(f.float())) is True
    assert checks.q01_2(lambda f: gram(f.float()) * 1.001) is False


def test_an_answer_cannot_change_what_it_is_compared_with():
    assert checks.q01_2(lambda f: (gram(f), f.zero_())[0]) is True
    assert checks.q01_2(lambda f: gram(f.zero_())) is False


def test_checkers_ask_the_same_of_everyone():
    seen = [[], []]
    for asked in seen:
        checks.q01_2(lambda f, asked=asked: asked.append(f) or gram(f))
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert len({f.shape for f in seen[0]}) >= 3  # so none can be right by luck
