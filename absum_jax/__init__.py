"""Absum regularization and Single Fourier Attack for JAX.

Two lines add Absum to an optax pipeline::

    import absum_jax
    tx = optax.chain(optax.sgd(lr, 0.9), absum_jax.absum(1e-3, learning_rate=lr))

Images are NHWC floats in [0, 1], with normalization inside the model; kernels are HWIO;
accuracies are fractions; a `logits_fn` is any callable from images to logits.
"""

from absum_jax.attacks.auto_pgd import apgd
from absum_jax.attacks.corruptions import corrupt
from absum_jax.attacks.frequency import band_pass, band_stop, high_pass, low_pass
from absum_jax.attacks.gradient import fgsm, pgd
from absum_jax.attacks.losses import dlr_loss, margin_loss, targeted_dlr_loss
from absum_jax.attacks.single_fourier import (
    single_fourier_attack,
    single_fourier_perturbation,
)
from absum_jax.attacks.square import square
from absum_jax.convolutions import canonical_convolutions
from absum_jax.evaluation.auto_attack import auto_attack
from absum_jax.evaluation.auto_attack_result import AutoAttackResult
from absum_jax.evaluation.clean import accuracy
from absum_jax.evaluation.corruptions import corruption_accuracy
from absum_jax.evaluation.counting import AttackAccuracy
from absum_jax.evaluation.frequency import high_pass_accuracy, low_pass_accuracy
from absum_jax.evaluation.gradient import pgd_accuracy
from absum_jax.evaluation.report import robustness_report
from absum_jax.evaluation.report_plots import plot_report
from absum_jax.evaluation.robustness import ReportRow, RobustnessReport
from absum_jax.evaluation.sensitivity import fourier_sensitivity
from absum_jax.evaluation.single_fourier import (
    fourier_noise_accuracy,
    single_fourier_accuracy,
)
from absum_jax.evaluation.summary import SingleFourierAccuracy, summarize_frequencies
from absum_jax.fourier import frequency_radius, power_spectrum, radial_mean
from absum_jax.intervals import wilson_interval
from absum_jax.kernels import conv_kernels
from absum_jax.plotting import (
    normalized_log,
    plot_frequency_heatmap,
    plot_power_spectrum,
    plot_radial_mean,
)
from absum_jax.prox import absum_penalty, prox_absum, prox_l1
from absum_jax.spectral import (
    SpectralNormState,
    apply_spectral_norm_constraint,
    apply_spectral_normalization,
    clip_conv_spectral_norm,
    conv_frequency_response,
    conv_induced_inf_norm,
    conv_singular_values,
    conv_spectral_norm,
    conv_zero_padded_norm_bound,
    spectral_norm_constraint,
    spectral_normalization,
)
from absum_jax.tracing import ConvUse, conv_input_shapes
from absum_jax.transforms import (
    ProximalState,
    absum,
    apply_proximal_updates,
    l1,
    proximal,
)

__version__ = "0.1.0"

__all__ = [
    "AttackAccuracy",
    "AutoAttackResult",
    "ConvUse",
    "ProximalState",
    "ReportRow",
    "RobustnessReport",
    "SingleFourierAccuracy",
    "SpectralNormState",
    "absum",
    "absum_penalty",
    "accuracy",
    "apgd",
    "apply_proximal_updates",
    "apply_spectral_norm_constraint",
    "apply_spectral_normalization",
    "auto_attack",
    "band_pass",
    "band_stop",
    "canonical_convolutions",
    "clip_conv_spectral_norm",
    "conv_frequency_response",
    "conv_induced_inf_norm",
    "conv_input_shapes",
    "conv_kernels",
    "conv_singular_values",
    "conv_spectral_norm",
    "conv_zero_padded_norm_bound",
    "corrupt",
    "corruption_accuracy",
    "dlr_loss",
    "fgsm",
    "fourier_noise_accuracy",
    "fourier_sensitivity",
    "frequency_radius",
    "high_pass",
    "high_pass_accuracy",
    "l1",
    "low_pass",
    "low_pass_accuracy",
    "margin_loss",
    "normalized_log",
    "pgd",
    "pgd_accuracy",
    "plot_frequency_heatmap",
    "plot_power_spectrum",
    "plot_radial_mean",
    "plot_report",
    "power_spectrum",
    "prox_absum",
    "prox_l1",
    "proximal",
    "radial_mean",
    "robustness_report",
    "single_fourier_accuracy",
    "single_fourier_attack",
    "single_fourier_perturbation",
    "spectral_norm_constraint",
    "spectral_normalization",
    "square",
    "summarize_frequencies",
    "targeted_dlr_loss",
    "wilson_interval",
]
