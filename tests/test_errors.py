import pickle

from freectl.errors import FreectlError, InputError, suggest, unknown


def test_input_error_is_one_line_naming_option_found_and_allowed():
    error = InputError("--image", "a file\nwith\r\nbreaks", "one line")
    assert str(error) == "--image: found a file\\nwith\\nbreaks; allowed: one line"
    assert error.exit_code == 2
    assert isinstance(error, FreectlError)
    assert isinstance(error, ValueError)
    assert FreectlError.exit_code == 1


def test_input_error_survives_a_worker_process():
    error = pickle.loads(pickle.dumps(InputError("--seed", "'x'", "a whole number")))
    assert (error.option, error.found, error.allowed) == ("--seed", "'x'", "a whole number")
    assert str(error) == "--seed: found 'x'; allowed: a whole number"


def test_suggest_ignores_case_and_is_silent_when_nothing_is_near():
    assert suggest("SDEDIT", ["sdedit", "pnp"]) == "did you mean 'sdedit'?"
    assert suggest("freecontol", ["freecontrol", "pnp"]) == "did you mean 'freecontrol'?"
    assert suggest("zzz", ["freecontrol", "pnp"]) == ""
    assert suggest("x", []) == ""


def test_unknown_lists_few_names_and_the_nearest_of_many():
    few = unknown("--method", "pnpp", ["sdedit", "pnp"])
    assert isinstance(few, InputError)
    assert str(few) == "--method: found unknown name 'pnpp'; allowed: pnp, sdedit (did you mean 'pnp'?)"
    many = str(unknown("--set", "weight7", [f"weight{i}x" for i in range(40)]))
    assert "one of 40 names" in many
    assert "did you mean 'weight7x'?" in many
    assert len(many) < 200
