"""Every import that the design promises to scripts."""

import importlib

import pytest

PROMISED = {
    "projection": "project class_ranks stream_names Projection",
    "attribution": "logit_attribution attribution_names",
    "identifiability": "identifiability identifiability_rate change_rate Identifiability compare_with_null",
    "categorical_updates": "similarity_change_rate similarity_increase residual_composition CategoricalUpdates",
    "perturbation": "self_only no_cls perturb region_mask Perturbation",
    "linear_probe": "fit_ridge_probe probe_features compare_with_projection",
    "value_vectors": "value_vectors value_logits top_classes top_memories class_value_agreement "
    "compare_class_value_agreement ClassValueAgreement semantic_coherence",
    "memory_pairs": "key_value_agreement compositionality class_value_agreement memory_coefficients edit_memories "
    "KeyValueAgreement Compositionality CausalMemories TopActivations",
    "feature_importance": "feature_importance importance_map METHODS explainer relevance gradient_attention "
    "raw_attention attention_rollout grad_cam input_gradients integrated_gradients random_map ProbeOrder",
    "faithfulness": "removal_curve removal_order removal_auc deletion_curve insertion_curve pointing_game mask_iou "
    "average_precision two_object_test Faithfulness Localisation",
    "patching": "activation_patching attribution_patching path_patching AblationStudy logit_difference agreement "
    "PatchResult",
    "circuits": "Circuit EdgeScores circuit_graph edge_attribution edge_patching "
    "circuit_curve minimality CircuitFaithfulness top_circuit greedy_circuit pruned_circuit",
    "sweep": "sweep read_sweep",
    "analysis": "Analysis AnalysisBatch token_groups TOKEN_GROUPS GroupSums ratio_rows difference_rows",
    "statistics": "signed_rank_test permutation_test permutation_tests pooled_permutation_test adjust_p_values "
    "rank_biserial cliffs_delta cohens_d bootstrap_interval bootstrap_ratio bootstrap_difference Interval Resampling",
    "data": "EmojiScenes ImageNetS ImageFolder Cifar100 LabelledImages open_dataset sample_scenes token_labels "
    "mask_like",
    "pages.explorer": "explore",
    "pages.report": "report",
}


@pytest.mark.parametrize(("module", "names"), PROMISED.items(), ids=list(PROMISED))
def test_promised_names(module: str, names: str) -> None:
    room = importlib.import_module(f"analyses.{module}")
    for name in names.split():
        assert name in room.__all__
        assert getattr(room, name) is not room
