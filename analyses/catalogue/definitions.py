"""What each analysis measures, in words: the text of its section in a report."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "ABLATION",
    "CATEGORICAL_UPDATES",
    "CAUSAL_MEMORIES",
    "CIRCUIT_FAITHFULNESS",
    "CLASS_VALUE_AGREEMENT",
    "COMPOSITIONALITY",
    "DICTIONARY_FIDELITY",
    "EARLY_EXIT",
    "FAILURE_PREDICTION",
    "FAITHFULNESS",
    "IDENTIFIABILITY",
    "KEY_VALUE_AGREEMENT",
    "LOCALISATION",
    "OUTLIERS",
    "PERTURBATION",
    "ROBUSTNESS",
    "SEGMENTATION",
    "TOKEN_PRUNING",
    "Definition",
]


@dataclass(frozen=True)
class Definition:
    """What an analysis measures, in words.

    Attributes:
        title: The heading of its section in a report.
        paper: The section of the paper; "" for a question that the paper leaves open.
        terms: The quantities in its figure: each term with a definition of a sentence or two.
        control: What its numbers are compared with.
    """

    title: str
    paper: str
    terms: Mapping[str, str]
    control: str = ""


_UNTRAINED = "The model freshly initialised, over the same images."

IDENTIFIABILITY = Definition(
    "Class identifiability, block by block",
    "section 4",
    {
        "Class identifiability": "Each token x of the residual stream is projected onto the classes, "
        "p = E · norm(x) + b. With rank the number of classes whose logit is above the correct class's, of C classes, "
        "identifiability is r = 1 − rank / C: 1 where the correct class is on top, about one half by chance.",
        "Identifiability rate": "The percentage of tokens with rank 0; for images, the percentage with at least one "
        "such patch token.",
        "Class against context tokens": "Patches on the object (the object's mask on the patch grid) minus patches of "
        "context, within each image, where the dataset has masks.",
        "Change rate": "The share of tokens whose correct-class logit rises from one block's output to the next.",
    },
    _UNTRAINED,
)
CATEGORICAL_UPDATES = Definition(
    "Sub-layer updates and residual composition",
    "section 5.1",
    {
        "Class-similarity change rate": "The share of tokens whose correct-class logit is greater in the projection "
        "of a sub-layer's output than in that of the block's input; the size of the update is the mean difference of "
        "the two.",
        "Residual composition": "The percentage of tokens whose top class after the block is that of the block's "
        "input, of attention's output, of the MLP's output, or of none of the three. Parts may agree with each other, "
        "so percentages do not add up to 100.",
    },
    _UNTRAINED,
)
PERTURBATION = Definition(
    "Impact of attention and of context",
    "section 4",
    {
        "self only": "Each patch token attends to itself alone; the attention of prefix tokens is unchanged.",
        "no CLS": "Patch tokens' attention to CLS is set to 0, and not renormalised.",
        "no context, no object": "Tokens outside (or inside) the object's mask are dropped after the position "
        "embedding. As published, the rate after is a mean over images, and the rate before one over tokens.",
    },
    _UNTRAINED,
)
KEY_VALUE_AGREEMENT = Definition(
    "Memories: key-value agreement",
    "section 5.2",
    {
        "Key-value agreement rate": "A neuron of an MLP, or a dimension of an attention head, is a memory: its "
        "activation is a coefficient, its row of the output matrix a value vector. The rate is the percentage of "
        "tokens for which at least one of the 5 largest coefficients belongs to one of the 5 value vectors with the "
        "largest logit for the correct class."
    },
    "A class drawn at random instead of the correct one, as an exact expectation.",
)
COMPOSITIONALITY = Definition(
    "Memories: compositionality",
    "section 5.2",
    {
        "Compositionality": "The percentage of tokens for which the top class of a sub-layer's output is the top "
        "class of none of the value vectors of the k largest coefficients: no single memory predicts what they "
        "predict together."
    },
    _UNTRAINED,
)
CLASS_VALUE_AGREEMENT = Definition(
    "Memories: class-value agreement",
    "section 5.2",
    {
        "Class-value agreement": "For each class, the largest cosine between the class's embedding and the value "
        "vectors of a layer; mean over classes. Filled markers: above the untrained model, Wilcoxon's signed-rank "
        "test with classes as pairs, one-sided, p < 0.05 after Holm's correction over blocks. A property of the "
        "weights: no images are involved, and intervals are over classes."
    },
    "The model freshly initialised.",
)
CAUSAL_MEMORIES = Definition(
    "Memories, causally",
    "",
    {
        "Causal test": "The coefficients of k memories of one block are set to zero, to their mean, or multiplied, at "
        "every token, and the rest of the model runs on the result. The figure shows the effect on the correct class's "
        "logit and on accuracy: after minus before."
    },
    "As many random memories whose value vectors have the same length; and memories of another class.",
)
FAITHFULNESS = Definition(
    "Faithfulness of feature importance and other methods",
    "section 6",
    {
        "Feature importance": "For patch s at block b and head h: minus the derivative of the cross-entropy of "
        "E · norm(attention's output at CLS) with respect to the attention of CLS to s, local to the block; summed "
        "over heads and blocks.",
        "Faithfulness": "Accuracy while patch tokens are removed from least to most important (negative: a good map "
        "keeps it high) or the reverse (positive: it falls early). The published area is the sum of the accuracies "
        "over (the largest accuracy × the number of patches).",
    },
    "Patches removed in random order.",
)
LOCALISATION = Definition(
    "Localisation of the object",
    "",
    {
        "Pointing game": "The share of images whose most important patch lies on the object.",
        "Mask IoU": "The overlap of the object with as many of the most important patches as it covers.",
        "Average precision": "The average precision of the ranking of patches by importance, with the patches on the "
        "object as positives.",
    },
    "Chance: the mean share of patches on the object.",
)
SEGMENTATION = Definition(
    "Patches as a segmentation",
    "",
    {
        "Pixel accuracy": "The share of the objects' pixels whose patch has the object's class on top.",
        "Object IoU": "In each image, the overlap of the object with all pixels of its class, divided by their union; "
        "the mean over images.",
        "Mean IoU": "The same for each class over the whole dataset, the mean over the classes that it shows. Classes "
        "predicted on background count as wrong, or, on objects only, are left out. Its interval resamples 64 groups "
        "of images.",
    },
    "The same for the model freshly initialised.",
)
OUTLIERS = Definition(
    "Outlier tokens and the attention that they draw",
    "",
    {
        "Norm ratio": "The norm of a token in the residual stream after a block, divided by the median norm of the "
        "image's patches.",
        "Outlier": "A token whose norm ratio is above the threshold, 3 unless the record says otherwise. The figure "
        "shows the percentage of images with at least one outlier patch.",
        "Attention": "The percentage of a block's attention that a kind of token draws, over all heads and queries; "
        "and the percentage that patches draw which enter the block as outliers.",
    },
    _UNTRAINED,
)
ROBUSTNESS = Definition(
    "Robustness: where the class representation breaks",
    "",
    {
        "Change of identifiability": "Class identifiability of the perturbed images minus that of the clean ones, for "
        "each block, over the same tokens.",
        "Drift of attribution": "What a head or an MLP contributes to the correct class's logit, with the final norm's "
        "scale frozen, on the perturbed images minus on the clean ones: mean over images, in logits.",
    },
    _UNTRAINED,
)
FAILURE_PREDICTION = Definition(
    "Which quantities predict errors",
    "",
    {
        "AUROC": "The probability that a quantity is larger for an image that is classified correctly than for one "
        "that is not; 0.5 is chance.",
        "Margin": "The head is applied to the stream after a block, as if it were the last: the largest logit minus "
        "the second largest.",
        "Agreement": "The share of patches whose top class is that of the head at the same block.",
        "Support": "The share of patches whose top class is the model's answer.",
    },
    "Confidence: the largest probability of the output.",
)
ABLATION = Definition(
    "Ablation of every head and MLP",
    "",
    {
        "Ablation": "Each head and each MLP in turn writes its mean over images, position by position, instead of its "
        "output. The figure shows the change, after minus before: accuracy, the correct class's logit, and "
        "identifiability of patches after the last block."
    },
)
CIRCUIT_FAITHFULNESS = Definition(
    "Faithfulness of circuits",
    "",
    {
        "Circuit": "Some edges of the model's graph, from what one part writes to what another reads. Edges outside it "
        "carry their value in a run of another image, one of another class. The metric is the correct class's logit "
        "minus the other image's; each image's edges are ranked by edge attribution.",
        "Faithfulness": "The share of the metric's change from the other image to this one that the circuit keeps: 1 "
        "where it does what the model does. CPR and CMD are the areas under faithfulness, and under its distance from "
        "1, over the share of edges (MIB benchmark).",
    },
    "Random connected circuits of as many edges, and all edges but the circuit.",
)
DICTIONARY_FIDELITY = Definition(
    "Fidelity of a sparse dictionary",
    "",
    {
        "Explained variance": "1 minus the squared error of the reconstructions over the activations' squared "
        "distance from their mean, over all tokens and dimensions together.",
        "Loss and accuracy recovered": "(ablated − spliced) / (ablated − plain), with the reconstruction, without its "
        "error, instead of the activation, and for the ablated model zeros (or the mean) instead: 1 where nothing "
        "is lost, 0 where the reconstruction is no better than nothing.",
        "L0 and dead latents": "The mean number of active latents of a token; latents that are active at no token of "
        "the dataset.",
    },
    "A dictionary of random directions with as many active latents, all of them multiplied by the one factor that "
    "reconstructs the first batch best. With zeros for the ablated model it recovers much of the loss, too.",
)
EARLY_EXIT = Definition(
    "Early exit",
    "",
    {
        "Early exit": "After each block, the model's own head reads the stream as if it were the last. An image "
        "leaves at the first block where its margin, the difference of the two largest probabilities, reaches a "
        "threshold, or where enough blocks in a row have the same top class. Nothing after that is computed for it.",
        "Mean depth": "The number of blocks that an image passes, on average. The figure shows accuracy against it "
        "over all thresholds; the area is the mean accuracy over depth.",
        "Calibrated threshold": "The lowest threshold that costs at most a point of accuracy on one half of the "
        "images; all numbers are measured on the other half.",
    },
    "Leaving after the same block for all images, and the model freshly initialised.",
)
TOKEN_PRUNING = Definition(
    "Fewer patches",
    "",
    {
        "Token pruning": "From one block on, each image keeps its prefix tokens and the share of its patches with the "
        "largest scores. Class space: the probability, in the patch's own projection, of the class that the head would "
        "name at that block (or of the label). Attention of CLS: the mean over heads, in the block before. Importance: "
        "the map of feature importance for the class that the whole model names. Norm: the length of the vector.",
        "On the object": "The share of the kept patches that lie on the object's mask.",
    },
    "As many random patches, and the model freshly initialised.",
)
