import pickle

import pytest

from richter import errors
from richter.errors import (
    ConfigError,
    ContractError,
    ExtraMissingError,
    FeedError,
    InputFileError,
    OperatorError,
    RichterError,
    TransportError,
)


def test_an_error_tells_fact_value_and_fix_in_one_sentence():
    error = InputFileError("the recording has no ticks", "a.ndjson", "check its first line")

    told = str(error)

    assert told == "the recording has no ticks: 'a.ndjson'; check its first line"


def test_an_error_without_value_or_fix_is_the_bare_fact():
    assert str(FeedError("the exchange closed the connection")) == "the exchange closed the connection"


def test_a_value_of_zero_is_shown():
    assert str(ConfigError("too small", 0)) == "too small: 0"


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError, 2), (InputFileError, 1), (TransportError, 1), (ContractError, 70)]
)
def test_exit_codes_divide_usage_from_failure_from_our_fault(error, code):
    assert error.exit_code == code


def test_an_error_survives_the_way_back_from_a_worker_process():
    error = ExtraMissingError.naming("mlflow", "tracking")

    returned = pickle.loads(pickle.dumps(error))

    assert type(returned) is ExtraMissingError
    assert str(returned) == str(error)
    assert "pip install 'richter[tracking]'" in str(returned)


def test_the_tree_in_the_docstring_names_every_error():
    classes = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and each.__module__ == errors.__name__
    ]

    missing = [each.__name__ for each in classes if f" {each.__name__}" not in (errors.__doc__ or "")]

    assert len(classes) > 8
    assert not missing


def test_the_feeds_and_the_brokers_faults_are_not_the_operators():
    assert not issubclass(FeedError, OperatorError)
    assert not issubclass(TransportError, OperatorError)
    assert all(issubclass(each, RichterError) for each in (FeedError, TransportError, OperatorError))
