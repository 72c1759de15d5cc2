"""Update rules beside NumPy written from the papers and, in the slow tier, beside torch's and timm's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import import_torch_zoo

from resnet_tf.config import Config, DataConfig, OptimizerConfig, TrainConfig
from resnet_tf.core.errors import UserError
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.training.checkpoint import variables_of
from resnet_tf.training.optimizers.conditional import apply_if
from resnet_tf.training.optimizers.create import create_optimizer, list_optimizers
from resnet_tf.training.step import TrainStep

GENERATOR = np.random.default_rng(0)
KERNEL, BIAS = GENERATOR.normal(size=(3, 3, 4, 8)), GENERATOR.normal(size=8)
GRADIENTS = [(GENERATOR.normal(size=KERNEL.shape), GENERATOR.normal(size=8)) for _ in range(5)]


def _run(name: str, skip=lambda optimizer: None, **settings) -> tuple[np.ndarray, np.ndarray]:
    """A kernel and a bias after the gradients, at a constant rate of 0.1, and `skip` after each of the first two."""
    inputs = keras.Input((5, 5, 4))
    model = keras.Model(inputs, keras.layers.Conv2D(8, 3, name="conv")(inputs))
    for variable, value in zip(model.trainable_variables, (KERNEL, BIAS), strict=True):
        variable.assign(value)
    group = OptimizerConfig(name=name, base_lr=0.1, schedule="constant", warmup_epochs=0.0, **settings)
    config = Config(data=DataConfig(batch_size=256), optimizer=group)
    optimizer = create_optimizer(config, TrainingLength(10, 100), model)
    for step, gradients in enumerate(GRADIENTS):
        optimizer.apply([tf.constant(each, tf.float32) for each in gradients], model.trainable_variables)
        if step < 2:
            skip(optimizer)
    return tuple(variable.numpy() for variable in model.trainable_variables)


@pytest.mark.parametrize("name", ["adamw", "adamax", "nadam", "lamb", "adafactor", "muon"])
def test_bias_corrections_do_not_count_skipped_steps(name):
    """As Keras's `LossScaleOptimizer` and PyTorch's `GradScaler`, which do not call the optimizer."""
    step = TrainStep.__new__(TrainStep)

    def skip(optimizer):
        step._optimizer = optimizer
        before = int(optimizer.iterations)
        step._skip()
        assert int(optimizer.iterations) == before + 1, "schedules count it"

    for ours, expected in zip(_run(name, skip), _run(name), strict=True):
        np.testing.assert_array_equal(ours, expected)


def _sgd(weight, gradients, *, decay, momentum, rate=0.1):
    velocity = 0.0
    for gradient in gradients:
        velocity = momentum * velocity - rate * (gradient + decay * weight)
        weight = weight + velocity
    return weight


def _adam(weight, gradients, *, decay, rate=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-7, trust=False):
    first = second = 0.0
    for step, gradient in enumerate(gradients, 1):
        first = beta_1 * first + (1 - beta_1) * gradient
        second = beta_2 * second + (1 - beta_2) * gradient**2
        if trust:
            update = first / (1 - beta_1**step) / (np.sqrt(second / (1 - beta_2**step)) + 1e-7) + decay * weight
            ratio = np.linalg.norm(weight) / np.linalg.norm(update) if decay else 1.0
            weight = weight - rate * ratio * update
            continue
        weight = weight - rate * decay * weight  # Loshchilov and Hutter 2019, algorithm 2
        scale = np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        weight = weight - rate * scale * first / (np.sqrt(second) + epsilon)
    return weight


def test_sgd_decays_in_the_gradient_and_only_kernels():
    kernel, bias = _run("sgd", weight_decay=0.1, momentum=0.5)
    np.testing.assert_allclose(kernel, _sgd(KERNEL, [a for a, _ in GRADIENTS], decay=0.1, momentum=0.5), rtol=1e-4)
    np.testing.assert_allclose(bias, _sgd(BIAS, [b for _, b in GRADIENTS], decay=0.0, momentum=0.5), rtol=1e-4)
    _, decayed = _run("sgd", weight_decay=0.1, momentum=0.5, decay_all=True)
    np.testing.assert_allclose(decayed, _sgd(BIAS, [b for _, b in GRADIENTS], decay=0.1, momentum=0.5), rtol=1e-4)


def test_nesterov_momentum_is_that_of_torch():
    kernel, _ = _run("sgd", weight_decay=0.1, momentum=0.9, nesterov=True)
    weight, velocity = KERNEL, 0.0
    for gradient, _ in GRADIENTS:  # Sutskever et al. 2013, as documented for torch.optim.SGD
        gradient = gradient + 0.1 * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - 0.1 * (gradient + 0.9 * velocity)
    np.testing.assert_allclose(kernel, weight, rtol=1e-4, atol=1e-6)


def test_adamw_decays_beside_the_gradient():
    kernel, bias = _run("adamw", weight_decay=0.1)
    np.testing.assert_allclose(kernel, _adam(KERNEL, [a for a, _ in GRADIENTS], decay=0.1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bias, _adam(BIAS, [b for _, b in GRADIENTS], decay=0.0), rtol=1e-4, atol=1e-5)


def test_lamb_scales_direction_and_decay_together():
    kernel, bias = _run("lamb", weight_decay=0.1)
    expected = _adam(KERNEL, [a for a, _ in GRADIENTS], decay=0.1, trust=True)
    np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-5)
    expected = _adam(BIAS, [b for _, b in GRADIENTS], decay=0.0, trust=True)
    np.testing.assert_allclose(bias, expected, rtol=1e-4, atol=1e-5)


def test_lars_scales_the_gradient_to_the_weight():
    kernel, bias = _run("lars", weight_decay=0.1, momentum=0.9)
    weight, velocity = KERNEL, 0.0
    for gradient, _ in GRADIENTS:
        norm = np.linalg.norm(weight)
        ratio = 0.001 * norm / (np.linalg.norm(gradient) + 0.1 * norm)
        velocity = 0.9 * velocity - 0.1 * ratio * (gradient + 0.1 * weight)
        weight = weight + velocity
    np.testing.assert_allclose(kernel, weight, rtol=1e-4)
    np.testing.assert_allclose(bias, _sgd(BIAS, [b for _, b in GRADIENTS], decay=0.0, momentum=0.9), rtol=1e-4)


def _step_of_ones(name: str, weight: float, gradient: float) -> np.ndarray:
    """Return a kernel of equal weights and gradients after one step with a learning rate and weight decay of 0.1."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
    (kernel,) = model.trainable_variables
    kernel.assign(np.full(kernel.shape, weight))
    group = OptimizerConfig(name, base_lr=0.1, weight_decay=0.1, schedule="constant", warmup_epochs=0.0)
    config = Config(data=DataConfig(batch_size=256), optimizer=group)
    create_optimizer(config, TrainingLength(10, 100), model).apply([tf.fill(kernel.shape, gradient)], [kernel])
    return kernel.numpy()


@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 1.0), (1.0, 0.0)])
def test_lars_does_not_scale_the_update_where_the_weight_or_the_gradient_is_zero(weight, gradient):
    """The ratio of 1 replaces the coefficient of 0.001, too."""
    expected = np.full((4, 3), weight - 0.1 * (gradient + 0.1 * weight))
    np.testing.assert_allclose(_step_of_ones("lars", weight, gradient), expected, rtol=1e-6)


def test_lamb_does_not_scale_the_update_of_a_weight_of_zero():
    np.testing.assert_allclose(_step_of_ones("lamb", 0.0, 1.0), np.full((4, 3), -0.1), rtol=1e-5)


def test_muon_makes_the_updates_of_convolutions_orthogonal():
    """After one step from zero momentum, the kernel moved by 0.2 sqrt(rows) times nearly orthogonal columns."""
    kernel, _ = _run("muon", weight_decay=0.0, momentum=0.0)
    whole = (KERNEL - kernel).reshape(-1, 8)
    singular = np.linalg.svd(whole, compute_uv=False)
    assert singular.max() < len(GRADIENTS) * 0.1 * 0.2 * np.sqrt(36) * 1.2
    once = _newton_schulz(GRADIENTS[0][0].reshape(-1, 8))
    assert np.linalg.svd(once, compute_uv=False).min() > 0.6
    expected = KERNEL.reshape(-1, 8)
    for gradient, _ in GRADIENTS:
        expected = expected - 0.1 * 0.2 * np.sqrt(36) * _newton_schulz(gradient.reshape(-1, 8))
    np.testing.assert_allclose(kernel.reshape(-1, 8), expected, atol=1e-3)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_momentum_of_muon_accumulates_gradients(nesterov):
    """As in the code of Jordan et al. 2024."""
    kernel, _ = _run("muon", weight_decay=0.0, momentum=0.9, nesterov=nesterov)
    expected, velocity = KERNEL.reshape(-1, 8), 0.0
    for gradient, _ in GRADIENTS:
        gradient = gradient.reshape(-1, 8)
        velocity = 0.9 * velocity + gradient
        update = gradient + 0.9 * velocity if nesterov else velocity
        expected = expected - 0.1 * 0.2 * np.sqrt(36) * _newton_schulz(update)
    np.testing.assert_allclose(kernel.reshape(-1, 8), expected, atol=1e-3)


def test_muon_iterates_in_bfloat16_where_the_network_computes_in_it():
    exact, _ = _run("muon", weight_decay=0.0, momentum=0.0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    rounded, _ = _run("muon", weight_decay=0.0, momentum=0.0)
    difference = np.linalg.norm(rounded - exact) / np.linalg.norm(exact - KERNEL)
    assert 1e-4 < difference < 0.1


def _newton_schulz(matrix):
    """The quintic iteration of Jordan et al. 2024."""
    x = matrix.T / np.linalg.norm(matrix)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T


@pytest.mark.parametrize("name", list_optimizers())
def test_every_name_takes_steps_and_decays(name):
    """`ftrl` starts anew from its sums, so that what decays is not what it reads."""
    kernel, bias = _run(name, weight_decay=0.0)
    assert np.isfinite(kernel).all()
    assert np.isfinite(bias).all()
    assert np.abs(kernel - KERNEL).max() > 0
    decayed, same = _run(name, weight_decay=0.5)
    np.testing.assert_array_equal(same, bias)
    if name != "ftrl":
        assert np.abs(decayed - kernel).max() > 0


@pytest.mark.parametrize("name", list_optimizers())
def test_variables_have_the_same_names_in_every_run_of_a_process(name):
    """Keras numbers a variable of Nadam by process, and several of Adafactor have one path."""
    inputs = keras.Input((5, 5, 4))
    model = keras.Model(inputs, keras.layers.Conv2D(8, 3, name="conv")(inputs))
    group = OptimizerConfig(name=name, base_lr=0.1, schedule="constant", warmup_epochs=0.0)
    config = Config(data=DataConfig(batch_size=256), optimizer=group)
    first, second = (create_optimizer(config, TrainingLength(10, 100), model) for _ in range(2))
    assert list(variables_of(first)) == list(variables_of(second))
    assert len(variables_of(first)) == len(first.variables)


def _in_phases(name: str, head_steps: int, finetune: str) -> dict[str, np.ndarray]:
    """Train the head alone for some steps and then, by `GRADIENTS`, all variables; return their values by path."""
    inputs = keras.Input((5, 5, 4))
    maps = keras.layers.Conv2D(8, 3, name="conv")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(maps))
    conv, head = model.trainable_variables[:2], model.trainable_variables[2:]
    generator = np.random.default_rng(1)
    for variable, value in zip(conv, (KERNEL, BIAS), strict=True):
        variable.assign(value)
    for variable in head:
        variable.assign(generator.normal(size=variable.shape))
    group = OptimizerConfig(name=name, base_lr=0.1, schedule="constant", warmup_epochs=0.0, weight_decay=0.1)
    train = TrainConfig(finetune=finetune, head_epochs=2)
    config = Config(data=DataConfig(batch_size=256), optimizer=group, train=train)
    optimizer = create_optimizer(config, TrainingLength(10, 100), model)
    for _ in range(head_steps):
        optimizer.apply([tf.constant(generator.normal(size=each.shape), tf.float32) for each in head], head)
    for gradients in GRADIENTS:
        own = [tf.constant(each, tf.float32) for each in gradients]
        own += [tf.constant(generator.normal(size=each.shape), tf.float32) for each in head]
        optimizer.apply(own, [*conv, *head])
    return {each.path: each.numpy() for each in model.trainable_variables}


@pytest.mark.parametrize("name", list_optimizers())
def test_a_body_after_a_head_phase_is_updated_as_from_the_start(name):
    """Bias corrections count the steps of each variable: those of the head go on."""
    late = _in_phases(name, 20, "head_then_all")
    for path, reference in {"conv": _in_phases(name, 0, "full"), "logits": _in_phases(name, 20, "full")}.items():
        for each in (f"{path}/kernel", f"{path}/bias"):
            np.testing.assert_allclose(late[each], reference[each], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "adamax"])
def test_steps_of_each_variable_are_counted_as_in_torch(name):
    torch = pytest.importorskip("torch", reason="live parity takes torch")
    kernel = torch.nn.Parameter(torch.tensor(KERNEL))
    other = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = {
        "adam": torch.optim.AdamW,  # Adam of this package has decoupled weight decay, too
        "adamw": torch.optim.AdamW,
        "nadam": lambda groups, **settings: torch.optim.NAdam(
            groups, momentum_decay=1.0, decoupled_weight_decay=True, **settings
        ),
        "adamax": torch.optim.Adamax,
    }[name]([kernel, other], lr=0.1, eps=1e-7, weight_decay=0.0 if name == "adamax" else 0.1)
    for step in range(20 + len(GRADIENTS)):
        other.grad, kernel.grad = torch.ones_like(other), None
        if step >= 20:
            kernel.grad = torch.tensor(GRADIENTS[step - 20][0])
            if name == "adamax":  # torch has coupled weight decay only
                kernel.data.mul_(1 - 0.1 * 0.1)
        optimizer.step()
    ours = _in_phases(name, 20, "head_then_all")["conv/kernel"]
    np.testing.assert_allclose(ours, kernel.detach().numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [{"schedule": "cosine", "warmup_epochs": 0.0}, {"schedule": "constant"}], ids=str)
def test_ftrl_needs_a_constant_learning_rate(settings):
    """Its update divides by the learning rate of each step, which a warmup begins at 0."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    group = OptimizerConfig(name="ftrl", **settings)
    with pytest.raises(UserError, match=r"optimizer.name=ftrl .* set optimizer.schedule=constant and"):
        create_optimizer(Config(optimizer=group), TrainingLength(10, 100), model)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "muon"])
def test_an_assigned_learning_rate_scales_the_rest_of_the_schedule(name, precision):
    """A float16 model has a loss scale around its optimizer."""
    keras.config.set_dtype_policy(precision)
    inputs = keras.Input((5, 5, 4))
    model = keras.Model(inputs, keras.layers.Conv2D(8, 3, name="conv")(inputs))
    group = OptimizerConfig(name=name, base_lr=0.1, schedule="linear", warmup_epochs=0.0)
    optimizer = create_optimizer(
        Config(optimizer=group, data=DataConfig(batch_size=256)), TrainingLength(10, 100), model
    )
    optimizer.learning_rate = 0.05
    assert float(optimizer.learning_rate) == pytest.approx(0.05)
    optimizer.iterations.assign(50)
    assert float(optimizer.learning_rate) == pytest.approx(0.025)
    assert [each.name for each in optimizer.variables].count("learning_rate_factor") == 1
    optimizer.iterations.assign(100)
    with pytest.raises(
        UserError, match=r"set the learning rate to 0.5 where the schedule is at 0; optimizer.schedule="
    ):
        optimizer.learning_rate = 0.5


def test_an_assigned_learning_rate_is_the_one_that_steps_take():
    """Gradient descent without momentum: the update is the gradient times the learning rate."""
    inputs = keras.Input((5, 5, 4))
    model = keras.Model(inputs, keras.layers.Conv2D(8, 3, name="conv")(inputs))
    group = OptimizerConfig(
        name="sgd", base_lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant", warmup_epochs=0.0
    )
    optimizer = create_optimizer(
        Config(optimizer=group, data=DataConfig(batch_size=256)), TrainingLength(10, 100), model
    )
    optimizer.learning_rate = 0.001
    before = [each.numpy() for each in model.trainable_variables]
    optimizer.apply([tf.constant(each, tf.float32) for each in GRADIENTS[0]], model.trainable_variables)
    for old, variable, gradient in zip(before, model.trainable_variables, GRADIENTS[0], strict=True):
        np.testing.assert_allclose(variable.numpy(), old - 0.001 * gradient, rtol=1e-4, atol=1e-6)


def _scaled_steps(apply) -> list[tuple[float, int, float]]:
    """Return loss scale, steps until it grows, and one weight, after each of eight steps; the sixth is not finite."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits", kernel_initializer="ones")(inputs))
    config = Config(optimizer=OptimizerConfig(name="sgd", schedule="constant", warmup_epochs=0.0))
    optimizer = create_optimizer(config, TrainingLength(10, 100), model)
    optimizer.dynamic_growth_steps = 3
    variables, states = model.trainable_variables, []
    for gradient in (1.0, 1.0, 1.0, 1.0, 1.0, np.inf, 1.0, 1.0):
        apply(optimizer, [tf.fill(each.shape, gradient) for each in variables], variables)
        scale, steps = optimizer.dynamic_scale, optimizer.step_counter
        states.append((float(scale.numpy()), int(steps.numpy()), float(variables[0][0, 0])))
    return states


def test_the_loss_scale_on_an_accelerator_is_that_of_keras():
    """A step of an accelerator calls `apply_if`, that of a CPU has the loss scale of Keras."""

    def apply(optimizer, gradients, variables):
        apply_if(optimizer, tf.reduce_all(tf.math.is_finite(gradients[0])), gradients, variables)

    keras.config.set_dtype_policy("mixed_float16")
    ours, theirs = _scaled_steps(apply), _scaled_steps(lambda optimizer, *arguments: optimizer.apply(*arguments))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    first = ours[0][0]
    assert [scale / first for scale, _, _ in ours] == [1, 1, 2, 2, 2, 1, 1, 1]


def test_unknown_names_are_refused():
    assert {"adam", "adamw", "lamb", "lars", "lion", "muon", "nadam", "rmsprop", "sgd"} <= set(list_optimizers())
    with pytest.raises(UserError, match=r"unknown optimizer.name 'agd'; did you mean .*'sgd'"):
        _run("agd")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "lars"])
def test_they_are_torchs_and_timms(name):
    torch = pytest.importorskip("torch", reason="live parity takes torch and timm")
    timm = import_torch_zoo("timm.optim")
    kernel, bias = (torch.nn.Parameter(torch.tensor(each)) for each in (KERNEL, BIAS))
    groups = [{"params": [kernel], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = {
        "sgd": lambda: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.1, eps=1e-7),
        "lamb": lambda: timm.Lamb(groups, lr=0.1, eps=1e-7, max_grad_norm=None),
        "lars": lambda: timm.Lars(groups, lr=0.1, momentum=0.9, trust_coeff=0.001),
    }[name]()
    for gradients in GRADIENTS:
        kernel.grad, bias.grad = (torch.tensor(each) for each in gradients)
        optimizer.step()
    ours = _run(name, weight_decay=0.1, momentum=0.9)
    for mine, theirs in zip(ours, (kernel, bias), strict=True):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lars", "lamb"])
@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 1.0), (1.0, 0.0)])
def test_steps_of_zeros_are_timms(weight, gradient, name):
    timm = import_torch_zoo("timm.optim")
    import torch

    theirs = torch.nn.Parameter(torch.full((4, 3), weight))
    theirs.grad = torch.full((4, 3), gradient)
    if name == "lars":
        optimizer = timm.Lars([theirs], lr=0.1, weight_decay=0.1, trust_coeff=0.001)
    else:
        optimizer = timm.Lamb([theirs], lr=0.1, weight_decay=0.1, eps=1e-7, max_grad_norm=None)
    optimizer.step()
    np.testing.assert_allclose(_step_of_ones(name, weight, gradient), theirs.detach().numpy(), rtol=1e-5)


@pytest.mark.slow
def test_lamb_with_clipped_gradients_is_timms():
    """timm's Lamb clips by the norm over all weights, 1.0 by default."""
    torch = pytest.importorskip("torch", reason="live parity takes torch and timm")
    timm = import_torch_zoo("timm.optim")
    parameters = [torch.nn.Parameter(torch.tensor(each)) for each in (KERNEL, BIAS)]
    groups = [{"params": [each], "weight_decay": decay} for each, decay in zip(parameters, (0.1, 0.0), strict=True)]
    theirs = timm.Lamb(groups, lr=0.1, eps=1e-7)
    inputs = keras.Input((5, 5, 4))
    model = keras.Model(inputs, keras.layers.Conv2D(8, 3, name="conv")(inputs))
    settings = {"schedule": "constant", "warmup_epochs": 0.0, "weight_decay": 0.1, "clip_norm": 1.0}
    step = TrainStep.__new__(TrainStep)
    step._config = Config(
        data=DataConfig(batch_size=256), optimizer=OptimizerConfig(name="lamb", base_lr=0.1, **settings)
    )
    step._optimizer = create_optimizer(step._config, TrainingLength(10, 100), model)
    step._variables, step._state, step._average = list(model.trainable_variables), [], None
    for variable, value in zip(step._variables, (KERNEL, BIAS), strict=True):
        variable.assign(value)
    for scale, gradients in zip((0.01, 1.0, 0.05, 3.0, 0.03), GRADIENTS, strict=True):  # norms of 0.2 to 50
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(scale * gradient)
        theirs.step()
        ours = [tf.constant(scale * gradient, tf.float32) for gradient in gradients]
        statistics = tf.stack([0.0, 0.0, tf.linalg.global_norm(ours), 0.0])
        step._update(ours, [], statistics, head_only=False)
    for variable, parameter in zip(step._variables, parameters, strict=True):
        np.testing.assert_allclose(variable.numpy(), parameter.detach().numpy(), rtol=1e-3, atol=1e-4)
