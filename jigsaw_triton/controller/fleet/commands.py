"""Command lines of a deployment's servers, which `deploy` runs and its dry run prints."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.servers.command import Command, gateway_command, with_input_limit, worker_command
from jigsaw_triton.servers.container import in_container
from jigsaw_triton.servers.image import Image
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.members import marks


@dataclass(frozen=True, slots=True)
class Commands:
    """Builds the command lines of one deployment from the settings that its servers share.

    Attributes:
        paths: Paths of the deployment.
        installation: Tritonserver installed on this machine.
        secret: Secret that a client must present to the protocols that change a server.
        image: Container image of the workers; None to use this machine's tritonserver.
        gpu: True if the MIG instances are real.
        edge: True if an edge receives requests in front of the gateway.
        gateway_image: Container image of the gateway; None to use this machine's tritonserver.
    """

    paths: Paths
    installation: Installation
    secret: str = field(repr=False)
    image: Image | None = None
    gpu: bool = False
    edge: bool = False
    gateway_image: Image | None = None

    @property
    def workers(self) -> Installation:
        """Tritonserver installation that workers run."""
        return self.installation if self.image is None else self.image.installation

    def worker(self, worker: Worker, uuid: str, mps: Mapping[str, str] = MappingProxyType({})) -> Command:
        """Returns the command line of a worker.

        Args:
            worker: Worker to run.
            uuid: UUID of its MIG instance.
            mps: Environment variables for clients of the instance's MPS daemon; empty if there is no daemon.
        """
        repository = self.paths.worker_repository(worker.name)
        # Python steps run outside the container, so that they find the same packages as the code beside them.
        own = worker.place is None or self.image is None
        command = self._marked(
            worker.name,
            worker_command(
                self.installation if own else self.workers,
                name=worker.name,
                repository=self.paths.plain(repository),
                run_dir=self.paths.run,
                secret=self.secret,
                device=uuid,
                device_mib=worker.memory_mib,
                mps=mps,
                # An update may load several models into this slice. The setting costs nothing until a model asks for
                # turns.
                shared=True,
            ),
        )
        if own or self.image is None:
            return command
        return in_container(
            with_input_limit(command, self.image.installation.version),
            self.image,
            run_dir=self.paths.run,
            repository=repository,
            gpu=self.gpu,
            mps=bool(mps),
        )

    def gateway(self, ports: GatewayPorts) -> Command:
        """Returns the command line of the gateway."""
        image = self.gateway_image
        command = self._marked(
            "gateway",
            gateway_command(
                self.installation if image is None else image.installation,
                repository=self.paths.plain(self.paths.gateway_repository),
                run_dir=self.paths.run,
                secret=self.secret,
                address=ports.address,
                http_port=ports.http,
                grpc_port=ports.grpc,
                metrics_port=ports.metrics,
                behind_edge=self.edge,
            ),
        )
        if image is None:
            return command
        return in_container(
            with_input_limit(command, image.installation.version),
            image,
            run_dir=self.paths.run,
            repository=self.paths.gateway_repository,
            gpu=False,
        )

    def _marked(self, name: str, command: Command) -> Command:
        """Adds the variables that show whose server it is."""
        return replace(command, env={**command.env, **marks(self.paths.state, name)})
