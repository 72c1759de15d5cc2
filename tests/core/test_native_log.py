"""Messages of native code that are held back."""

import os
import threading

from resnet_tf.core.native_log import filtered


def test_threads_do_not_take_each_others_stderr():
    """Regression: the thread that left last restored the file into which the first one had redirected stderr."""
    before = os.fstat(2)
    first_is_in, second_waits = threading.Event(), threading.Event()

    def first() -> None:
        with filtered(lambda line: True):
            first_is_in.set()
            second_waits.wait(0.2)  # the second one enters here, or cannot

    def second() -> None:
        first_is_in.wait()
        with filtered(lambda line: True):
            second_waits.set()
            threads[0].join(0.5)  # the first one leaves here, or has left

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.path.samestat(os.fstat(2), before)
