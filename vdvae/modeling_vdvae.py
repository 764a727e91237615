"""VDVAE (Child, arXiv:2011.10650) and WS-VDVAE (Falck et al., arXiv:2301.08187): a ladder of latents, coarse to fine.

The evidence lower bound of an image x with the latents z_1, .., z_L, as nats per dimension of x to be minimised:

    elbo = ( E_q[-log p(x | z)] + sum_i E_q[KL(q(z_i | z_<i, x) | p(z_i | z_<i))] ) / (C S S)
         = nll + rate;   bits per dimension = elbo / ln 2

Shape letters: B batch, C image channels, S the image's side, R the side of a state, Z latent channels, L cells applied,
P parameters of the likelihood, U uniform numbers that a sample of it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from .blocks import STATE_NORMS, StateNorm, conv
from .bottom_up import BlockSettings, BottomUp
from .heads import Compatibility, make_head
from .layout import BlockSpec, decoder_layout, encoder_layout, encoder_resolutions, layout_widths
from .loading import aligned
from .noise import Generators, draw_uniforms
from .top_down import Draws, Tensors, TopDown, TopDownOutput


class ElboTerms(NamedTuple):
    """The bound of every image in its parts, all in nats per dimension.

    Attributes
    ----------
    nll : torch.Tensor
        (B,), minus the log likelihood of the pixels given the latents.
    kl : torch.Tensor
        (B, L), the KL divergence of every cell applied.
    """

    nll: torch.Tensor
    kl: torch.Tensor

    @property
    def rate(self) -> torch.Tensor:
        """(B,), what the latents cost."""
        return self.kl.sum(dim=1)

    @property
    def elbo(self) -> torch.Tensor:
        """(B,), nll + rate: the bound, to be minimised."""
        return self.nll + self.rate

    @property
    def bits_per_dim(self) -> torch.Tensor:
        """(B,), the bound in bits: elbo / ln 2."""
        return self.elbo / math.log(2)


class VDVAEModel(ModelMixin, ConfigMixin):
    """A hierarchical variational autoencoder whose two passes are strings of blocks; see `layout`.

    Images are integers 0..input_levels-1, (B, C, S, S). Every image is computed on its own.

    Parameters
    ----------
    sample_size : int
        S.
    in_channels : int
        C.
    enc_blocks, dec_blocks : str
        The blocks of the bottom-up and of the top-down pass.
    width : int
        Channels of the state.
    custom_widths : dict of int to int, optional
        Resolution -> channels where they differ from `width`; they must not grow with the resolution.
    latent_channels : int
        Z.
    bottleneck_multiple : float
        Channels inside a block, in units of its width.
    no_bias_above : int
        Resolutions up to this one start from a learned state.
    likelihood : {"logistic_mixture", "bernoulli", "gaussian"}
        See `heads`.
    num_mixtures : int
        Components of the mixture of logistics.
    levels : int
        Grey levels of the likelihood.
    input_levels : int, optional
        Grey levels of the images, a multiple of `levels`; default the same.
    likelihood_compat : {"exact", "published"}
        published: the likelihood of the published checkpoints, of which that of 5 bits is not normalised.
    input_shift, input_scale : float, optional
        The encoder sees (image + input_shift) * input_scale; default the range [-1, 1].
    state_norm : {"none", "unit", "rms"}
        Divide the state by its norm after every block, so that it cannot tell how far the pass is; see
        `normalise_state`.
    fourier_features : sequence of int
        For every n, sin and cos of 2^n pi x are given to the encoder beside the image x in [-1, 1].
    residual : bool
        False leaves out the state that blocks and cells are added to.
    max_latent_blocks : int, optional
        At most so many cells, evenly spaced, draw latents; the others take the prior's mean.

    Examples
    --------
    >>> model = VDVAEModel(8, 1, "8x1,8d2,4x1", "4x1r2,8m4", width=8, latent_channels=2, levels=17, num_mixtures=2)
    >>> images = torch.randint(17, (3, 1, 8, 8))
    >>> terms = model.elbo(images)
    >>> terms.nll.shape, terms.kl.shape
    (torch.Size([3]), torch.Size([3, 3]))
    >>> model.sample_images(model.decode(batch_size=2, temperature=0.8)).shape
    torch.Size([2, 1, 8, 8])
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["Cell", "Block"]  # noqa: RUF012 (diffusers reads a list)

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        enc_blocks: str = "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
        dec_blocks: str = "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
        width: int = 384,
        custom_widths: dict[int, int] | None = None,
        latent_channels: int = 16,
        bottleneck_multiple: float = 0.25,
        no_bias_above: int = 64,
        likelihood: str = "logistic_mixture",
        num_mixtures: int = 10,
        levels: int = 256,
        input_levels: int | None = None,
        likelihood_compat: Compatibility = "exact",
        input_shift: float | None = None,
        input_scale: float | None = None,
        state_norm: StateNorm = "none",
        fourier_features: Sequence[int] = (),
        residual: bool = True,
        max_latent_blocks: int | None = None,
    ) -> None:
        super().__init__()
        custom_widths = {int(side): channels for side, channels in (custom_widths or {}).items()}  # JSON has text keys
        self.register_to_config(custom_widths=custom_widths or None)
        if state_norm not in STATE_NORMS:
            raise ValueError(f"state_norm must be one of {', '.join(STATE_NORMS)}, got {state_norm!r}.")
        if max_latent_blocks is not None and max_latent_blocks < 1:
            raise ValueError(f"max_latent_blocks must be at least 1, got {max_latent_blocks}.")
        self._input_levels = input_levels or levels
        self.head = make_head(likelihood, in_channels, levels, self._input_levels, num_mixtures, likelihood_compat)

        encoder = encoder_layout(enc_blocks, sample_size)
        resolutions = encoder_resolutions(encoder)
        decoder = decoder_layout(dec_blocks, sample_size, resolutions)
        settings = BlockSettings(
            layout_widths(width, custom_widths, resolutions), bottleneck_multiple, state_norm, residual
        )
        if min(map(settings.inner_channels, resolutions)) < 1 or latent_channels < 1:
            raise ValueError(
                f"Blocks need at least one channel inside, and latents one: got width {width}, bottleneck_multiple "
                f"{bottleneck_multiple}, latent_channels {latent_channels}."
            )
        self.encoder = BottomUp(in_channels * (1 + 2 * len(fourier_features)), encoder, settings)
        self.decoder = TopDown(latent_channels, decoder, settings, no_bias_above, max_latent_blocks)
        self.out_conv = conv(settings.widths[sample_size], self.head.num_parameters)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a saved network (see diffusers' `ModelMixin`), with its weights where arithmetic is reproducible."""
        return aligned(super().from_pretrained(*args, **kwargs))

    @property
    def cells(self) -> tuple[BlockSpec, ...]:
        """The cells of the top-down pass in the order in which they are applied; L of them."""
        return self.decoder.specs

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """(Z, R, R) of every cell applied: the shapes of its latent and of its noise."""
        return self.decoder.latent_shapes

    @property
    def num_dims(self) -> int:
        """C S S, the dimensions of an image."""
        return self.config.in_channels * self.config.sample_size**2

    def encoder_input(self, images: torch.Tensor) -> torch.Tensor:
        """Images as the encoder sees them, (B, C (1 + 2 F), S, S), with F Fourier features."""
        self._check_images(images)
        half = (self._input_levels - 1) / 2
        shift, scale = self.config.input_shift, self.config.input_scale
        x = images.to(self.dtype)
        shifted = (x + (-half if shift is None else shift)) * (1 / half if scale is None else scale)
        angles = [math.pi * 2**n * ((x - half) / half) for n in self.config.fourier_features]
        return torch.cat([shifted, *(wave(angle) for angle in angles for wave in (torch.sin, torch.cos))], dim=1)

    def bottom_up(
        self, images: torch.Tensor, return_states: bool = False
    ) -> tuple[dict[int, torch.Tensor], list[torch.Tensor]]:
        """The activation of every resolution and, if asked for, the state after every block; see `BottomUp`."""
        return self.encoder(self.encoder_input(images), return_states)

    def encode(
        self,
        images: torch.Tensor,
        noise: Tensors | None = None,
        generator: Generators = None,
        *,
        sampled_kl: bool = False,
        return_states: bool = False,
    ) -> TopDownOutput:
        """Draw the latents of images from the posterior.

        Parameters
        ----------
        images : torch.Tensor
            (B, C, S, S), integers.
        noise : sequence of torch.Tensor, optional
            Standard normals of every cell, of `latent_shapes`, instead of the generator's.
        generator : torch.Generator or sequence of them, optional
            One for all images, or one per image: then every image depends on its own generator alone.
        sampled_kl : bool
            Estimate every KL by log q(z) - log p(z) of the z that was drawn.
        return_states : bool
            Keep the state after every cell.
        """
        activations, _ = self.bottom_up(images)
        return self.decoder(len(images), Draws(None, noise, generator), activations, sampled_kl, return_states)

    def decode(
        self,
        latents: Tensors | None = None,
        *,
        batch_size: int | None = None,
        temperature: float | Sequence[float] = 1.0,
        noise: Tensors | None = None,
        generator: Generators = None,
        return_states: bool = False,
    ) -> TopDownOutput:
        """Run the top-down pass without an image: latents that are not given are drawn from the prior.

        Parameters
        ----------
        latents : sequence of (torch.Tensor or None), optional
            z of every cell applied, of `latent_shapes`; None where it is drawn.
        batch_size : int, optional
            B; default that of the latents or the noise, else 1.
        temperature : float or sequence of float
            The factor of the prior's scale: one number, or one per cell applied.
        noise, generator, return_states
            As in `encode`.
        """
        if batch_size is None:
            given = [one for one in (*(latents or ()), *(noise or ())) if one is not None]
            batch_size = len(given[0]) if given else 1
        return self.decoder(batch_size, Draws(latents, noise, generator, temperature), None, False, return_states)

    def likelihood_parameters(self, out: TopDownOutput) -> torch.Tensor:
        """(B, P, S, S): what the head makes a distribution over pixels of."""
        return self.out_conv(out.features)

    def sample_images(
        self, out: TopDownOutput, uniforms: torch.Tensor | None = None, generator: Generators = None
    ) -> torch.Tensor:
        """Images drawn from the likelihood, (B, C, S, S), int64 in 0..input_levels-1.

        Parameters
        ----------
        out : TopDownOutput
            Of `encode` (reconstructions) or `decode`.
        uniforms : torch.Tensor, optional
            (B, U, S, S) in [0, 1), with U = `head.num_uniforms`, instead of the generator's.
        generator : torch.Generator or sequence of them, optional
            As in `encode`.
        """
        parameters = self.likelihood_parameters(out)
        if uniforms is None:
            shape = (len(parameters), self.head.num_uniforms, *parameters.shape[2:])
            uniforms = draw_uniforms(shape, generator, parameters)
        return self.head.sample(parameters, uniforms)

    def log_prob(self, out: TopDownOutput, images: torch.Tensor) -> torch.Tensor:
        """(B,): log probability of images given the latents of `out`, in nats per image."""
        return self.head.log_prob(self.likelihood_parameters(out), images).sum(dim=(1, 2))

    def elbo(
        self,
        images: torch.Tensor,
        noise: Tensors | None = None,
        generator: Generators = None,
        *,
        sampled_kl: bool = False,
    ) -> ElboTerms:
        """The bound of every image, in nats per dimension; arguments as in `encode`."""
        out = self.encode(images, noise, generator, sampled_kl=sampled_kl)
        return ElboTerms(nll=-self.log_prob(out, images) / self.num_dims, kl=out.kl / self.num_dims)

    def forward(
        self,
        images: torch.Tensor,
        noise: Tensors | None = None,
        generator: Generators = None,
    ) -> ElboTerms:
        """`elbo`: what training calls."""
        return self.elbo(images, noise, generator)

    def _check_images(self, images: torch.Tensor) -> None:
        """Raise a ValueError unless `images` are integers of the right shape."""
        shape = (self.config.in_channels, self.config.sample_size, self.config.sample_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != shape:
            raise ValueError(
                f"Images must have the shape (B, {', '.join(map(str, shape))}), got {tuple(images.shape)}."
            )
        if images.is_floating_point():
            raise ValueError(
                f"Images must be integers 0..{self._input_levels - 1}, got {images.dtype}: round them first."
            )
