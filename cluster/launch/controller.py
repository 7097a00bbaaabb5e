"""Ray Train's controller and trainer with what is ours: a supervisor, a range of workers, nothing that is of no use.

Ray Train's placement-group cleaner is left out: it takes up to 12 s to stop, and where the driver is killed and no
dashboard answers, it stays for ever (a detached actor, once a run). A driver of ours is one run, and Ray removes the
placement groups of a driver that has gone. The actor that hands out Ray's datasets, of which there are none, is left
out too: a process that takes a second or two to start. So does one for the controller: it runs in the driver.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from cluster.distributed.devices import Placement
from cluster.launch.elastic import Elastic
from cluster.launch.failures import as_told, failure_of
from cluster.launch.supervisor import Supervisor
from cluster.launch.workers import Workers
from cluster.training.job import Job

_LEFT_OUT = (PlacementGroupCleanerCallback, DatasetsCallback)
_VARIABLES = {
    # Seconds that a group which has failed is given to take its process group apart; Ray's 30 would be waited for.
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
    # Its log is in Ray's folder, which may be another user's. What there is to say the supervisor says.
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
}


class Controller(TrainController):
    """Ray Train's, with a supervisor that decides about failures and is told of the workers."""

    worker_group_cls = Workers

    def __init__(self, failure_policy: Supervisor, callbacks: list, **rest: Any) -> None:
        self._supervisor = failure_policy
        super().__init__(failure_policy=failure_policy, callbacks=[*callbacks, failure_policy], **rest)

    def _make_and_handle_scaling_decision_for_non_running_worker_group(self, controller_state: Any) -> Any:
        # First, so that what the group held is free when it is asked how many workers there is room for.
        if self._worker_group:
            self._shutdown_worker_group()
        self._supervisor.before_start()
        return super()._make_and_handle_scaling_decision_for_non_running_worker_group(controller_state)

    def verdict(self) -> Exception | None:
        """What the driver raises; None after a run that ended well."""
        return self._supervisor.verdict


class Fixed(FixedScalingPolicy):
    """That many workers, on a Ray of our own: nobody is asked for more machines (an actor, which takes seconds)."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Asks for nothing."""

    def _maybe_send_resource_request(self) -> None:
        pass


class Trainer(TorchTrainer):
    """Ray Train's for torch, under a controller of ours."""

    def supervised(self, job: Job, placement: Placement, own_ray: bool) -> None:
        """Runs the job to its end; raises as `cluster.launch.ray_train.fit` does. `own_ray`: no cluster of others'."""
        self._job, self._placement, self._own_ray = job, placement, own_ray
        self._verdict: Exception | None = None
        try:
            self.fit()
        except TrainingFailedError as error:  # without a verdict: the controller itself could not go on
            cluster = job.config.cluster
            raise (self._verdict or as_told(failure_of(error), job.run, cluster, placement)) from None

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        scaling: Any = self.scaling_config  # of the V2 API; mypy takes it for that of the API before
        settings["failure_policy"] = Supervisor(self._job, self._placement)
        if self._placement.least:
            settings["scaling_policy"] = Elastic(scaling, self._placement, self._job.config.cluster)
        elif self._own_ray:
            settings["scaling_policy"] = Fixed(scaling)
        os.environ |= _VARIABLES
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        controller = Controller(**settings)
        with asyncio.Runner() as runner:  # not its run(): Ctrl-C is our caller's
            runner.get_loop().run_until_complete(controller.run())
        self._verdict = controller.verdict()
        return controller.get_result()

    def _create_default_callbacks(self) -> list:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, _LEFT_OUT)]
