"""The lifecycle node ``/registration``: X-rays in, poses out. All computing is in the core, on one worker thread."""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from sphere_reg_ros.action import Register
from sphere_reg_ros.errors import InputError, SphereRegError
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.msg import CArmGeometry
from sphere_reg_ros.registration.errors import RegistrationCancelled
from sphere_reg_ros.registration.result import RegistrationResult, TraceStep
from sphere_reg_ros.ros import conversions, pixels
from sphere_reg_ros.ros.diagnostics import Health, diagnostic_array
from sphere_reg_ros.ros.errors import FrameError, NoCtError, StaleImageError
from sphere_reg_ros.ros.parameters import REGISTRATION_PARAMETERS, declare
from sphere_reg_ros.ros.publishing import ResultPublisher
from sphere_reg_ros.ros.session import PipelineFactory, Prior, RegistrationSession
from sphere_reg_ros.ros.synchroniser import StampedHistory, StampSynchroniser
from sphere_reg_ros.ros.tf_buffer import TransformBuffer
from sphere_reg_ros.ros.worker import Job, Worker
from sphere_reg_ros.srv import LoadCT

STATIC_TF_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
EXECUTOR_THREADS = 6
MAX_GOALS = 2
GEOMETRY_PATIENCE_S = 0.2
START_PATIENCE_S = 30.0


class RegistrationNode(LifecycleNode):
    """Registers X-rays to the loaded CT while it is active."""

    def __init__(self, pipeline_factory: PipelineFactory | None = None, **options: Any) -> None:
        super().__init__("registration", **options)
        declare(self, REGISTRATION_PARAMETERS)
        self._pipeline_factory = pipeline_factory
        self._active = False
        self._latest: tuple[Image, CameraInfo] | None = None
        self._entities: list[tuple[Any, Any]] = []
        self._goals = 0

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Make everything; load the CT that the parameters name."""
        self._session = RegistrationSession.configured(self._value, self._pipeline_factory)
        self._health = Health()
        self._pairs: StampSynchroniser[Image, CameraInfo] = StampSynchroniser()
        self._transforms = TransformBuffer()
        self._geometries: StampedHistory[CArmGeometry] = StampedHistory()
        self._publisher = ResultPublisher(self, self._session, self._transforms)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._entities.append((self.destroy_publisher, self._diagnostics))
        self._worker = Worker(self._report)
        self._subscribe()
        self._serve()
        if self._value("ct_path"):
            try:
                self._load_ct(self._value("ct_path"), self._value("labels_path"), self._value("landmarks_path"))
            except InputError as error:
                self.get_logger().error(str(error))
                self._clean_up()
                return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to register and to publish TF."""
        self._active = True
        # Markers tell the C-arm, and late comers, that there is a CT and that X-rays are taken.
        self._publisher.ct_markers()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop; TF ends here, because a lifecycle node does not gate it by itself."""
        self._active = False
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the CT and the device."""
        self._clean_up()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what is left."""
        self.stop()
        return TransitionCallbackReturn.SUCCESS

    def _subscribe(self) -> None:
        streams, transforms = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        for kind, topic, callback, qos, group in (
            (Image, "image_raw", self._on_image, qos_profile_sensor_data, streams),
            (CameraInfo, "camera_info", self._on_camera_info, qos_profile_sensor_data, streams),
            (CArmGeometry, "carm_geometry", self._on_geometry, qos_profile_sensor_data, streams),
            (PoseWithCovarianceStamped, "initial_pose", self._on_prior, 10, streams),
            (TFMessage, "/tf", lambda message: self._on_tf(message, False), 100, transforms),
            (TFMessage, "/tf_static", lambda message: self._on_tf(message, True), STATIC_TF_QOS, transforms),
        ):
            subscription = self.create_subscription(kind, topic, callback, qos, callback_group=group)
            self._entities.append((self.destroy_subscription, subscription))
        timer = self.create_timer(1.0, self._diagnose, callback_group=MutuallyExclusiveCallbackGroup())
        self._entities.append((self.destroy_timer, timer))

    def _serve(self) -> None:
        # These wait for the worker, each in a group and so in a thread of its own; the streams never do.
        loading = self.create_service(LoadCT, "~/load_ct", self._on_load_ct, callback_group=MutuallyExclusiveCallbackGroup())
        resetting = self.create_service(Trigger, "~/reset", self._on_reset, callback_group=MutuallyExclusiveCallbackGroup())
        self._entities += [(self.destroy_service, loading), (self.destroy_service, resetting)]
        self._action = ActionServer(
            self,
            Register,
            "~/register",
            execute_callback=self._on_register,
            goal_callback=self._on_goal,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._on_clock_jump)

    def stop(self) -> None:
        """End what runs and free the device, before the process ends: a thread that computes must not outlive Python."""
        if self._entities:
            self._clean_up()

    def _clean_up(self) -> None:
        self._active = False
        self._worker.stop()
        self._action.destroy()
        self._jump_handle.unregister()
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities = []
        self._publisher.destroy()
        self._session = RegistrationSession.configured(self._value, self._pipeline_factory)

    def _live(self) -> bool:
        return self._active and self.context.ok()

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_image(self, message: Image) -> None:
        self._health.image_arrived()
        self._take(self._pairs.add_first(conversions.stamp_ns(message.header.stamp), message))

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._take(self._pairs.add_second(conversions.stamp_ns(message.header.stamp), message))

    def _on_geometry(self, message: CArmGeometry) -> None:
        self._geometries.add(conversions.stamp_ns(message.header.stamp), message)

    def _on_prior(self, message: PoseWithCovarianceStamped) -> None:
        stamp_ns = conversions.stamp_ns(message.header.stamp)
        try:
            T_frame_ct = conversions.transform_from_pose(message.pose.pose).numpy()
            self._session.add_prior(Prior(stamp_ns, message.header.frame_id, T_frame_ct))
        except InputError as error:
            self._report(error)

    def _on_tf(self, message: TFMessage, is_static: bool) -> None:
        for one in message.transforms:
            if one.child_frame_id == self._value("ct_frame"):
                continue
            try:
                T = conversions.transform_from_message(one)
            except InputError as error:
                self._report(error)
                continue
            self._transforms.insert(one.header.frame_id, one.child_frame_id, conversions.stamp_ns(one.header.stamp), T, is_static)

    def _on_clock_jump(self, jump: Any) -> None:
        self.get_logger().info("the clock jumped: poses and pending X-rays are forgotten")
        self._forget()

    def _forget(self) -> None:
        self._worker.drop_images()
        self._session.forget()
        self._pairs.clear()
        self._transforms.clear()
        self._latest = None

    def _take(self, pair: tuple[Image, CameraInfo] | None) -> None:
        if pair is None:
            return
        self._latest = pair
        if self._active and self._value("register_on_image"):
            arrived = time.monotonic()
            self._worker.submit(Job(lambda: self._register_image(pair, arrived), is_image=True))

    def _register_image(self, pair: tuple[Image, CameraInfo], arrived: float) -> None:
        try:
            self._register_pair(pair, arrived)
        except RegistrationCancelled:
            self.get_logger().info("a registration ended because the node was deactivated")

    def _register_pair(self, pair: tuple[Image, CameraInfo], arrived: float, **options: Any) -> RegistrationResult | None:
        """On the worker: register, publish, count. None where the X-ray was refused."""
        image, info = pair
        try:
            self._check_age(image)
            xray = pixels.image_to_xray(image, self._value("image_is_attenuation"))
            camera = self._camera(info)
            chosen = {name: self._value(name) for name in ("use_last_pose", "tracking")}
            limits = {"timeout_s": self._value("timeout_s") or None, "should_stop": lambda: not self._live()}
            options = {**chosen, **limits, **options}
            if options.get("T_initial") is None:
                options["T_initial"] = self._prior_in_camera(image.header)
            result = self._session.register(xray, camera, conversions.stamp_ns(image.header.stamp), **options)
            self._health.succeeded((time.monotonic() - arrived) * 1e3)
            self._publish(result, xray, image.header)
        except RegistrationCancelled:
            raise
        except SphereRegError as error:
            self._report(error)
            if not isinstance(error, (NoCtError, StaleImageError)):
                self._publisher.refusal(str(error), image.header)
            return None
        return result

    def _publish(self, result: RegistrationResult, xray: XrayImage, header: Header) -> None:
        if not self._live():
            return
        try:
            self._publisher.result(result, xray, header, self._value("anchor_frame"), self._value("publish_tf"))
        except FrameError as error:
            self._report(error)

    def _prior_in_camera(self, header: Header) -> np.ndarray | None:
        stamp_ns = conversions.stamp_ns(header.stamp)
        prior = self._session.take_prior(stamp_ns)
        if prior is None:
            return None
        return self._transforms.lookup(header.frame_id, prior.frame_id or header.frame_id, stamp_ns).numpy() @ prior.T_frame_ct

    def _camera(self, info: CameraInfo) -> Camera:
        """The camera; its carm_geometry may come a moment after the X-ray, and until then be missing or contradict it."""
        deadline, stamp_ns = time.monotonic() + GEOMETRY_PATIENCE_S, conversions.stamp_ns(info.header.stamp)
        while True:
            try:
                scale = (self._value("sdd_mm"), self._value("pixel_pitch_mm"))
                return conversions.camera_from_messages(info, self._geometries.at(stamp_ns), *scale)
            except InputError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(GEOMETRY_PATIENCE_S / 10)

    def _check_age(self, image: Image) -> None:
        if not image.header.frame_id:
            raise FrameError("X-ray has no frame_id; TF needs the camera's frame in the image's header")
        limit_s = self._value("max_image_age_s")
        age_s = (self.get_clock().now().nanoseconds - conversions.stamp_ns(image.header.stamp)) / 1e9
        if limit_s > 0.0 and age_s > limit_s:
            raise StaleImageError(f"X-ray is {age_s:.2f} s old (limit {limit_s:.2f} s, parameter max_image_age_s)")

    def _on_load_ct(self, request: LoadCT.Request, response: LoadCT.Response) -> LoadCT.Response:
        problem: list[BaseException] = []

        def load() -> None:
            try:
                self._load_ct(request.path, request.labels_path, request.landmarks_path)
            except Exception as error:  # whatever is wrong with a file is answered, and the node lives on
                problem.append(error)

        job = Job(load)
        self._worker.submit(job)
        job.done.wait()
        if problem or job.dropped:
            response.message = str(problem[0]) if problem else "the node is shutting down"
            self._health.failed(response.message)
            return response
        ct = self._session.ct
        assert ct is not None
        self._health.cleared()
        response.success, response.message, response.sha256 = True, f"loaded {ct.source}", ct.sha256
        response.size, response.spacing_mm = list(ct.size), list(ct.spacing_mm)
        return response

    def _load_ct(self, path: str, labels_path: str, landmarks_path: str) -> None:
        ct = self._session.load_ct(path, labels_path, landmarks_path)
        if self._active:
            self._publisher.ct_markers()
        self.get_logger().info(f"loaded {ct.source}: {ct.size} voxels of {tuple(round(one, 3) for one in ct.spacing_mm)} mm")

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._forget()
        self._health.cleared()
        response.success, response.message = True, "poses and pending X-rays are forgotten"
        return response

    def _on_goal(self, request: Register.Goal) -> GoalResponse:
        # Each goal holds one of the executor's threads until it is done; the streams and ~/reset need the others.
        return GoalResponse.ACCEPT if self._active and self._goals < MAX_GOALS else GoalResponse.REJECT

    def _on_register(self, goal: Any) -> Register.Result:
        self._goals += 1
        try:
            return self._register_goal(goal)
        finally:
            self._goals -= 1

    def _register_goal(self, goal: Any) -> Register.Result:
        pair = self._latest
        outcome: dict[str, Any] = {}
        if pair is None:
            self._health.failed("no X-ray has arrived yet")
            goal.abort()
            return conversions.action_without_result("no X-ray with its camera_info has arrived yet")

        def feed_back(step: TraceStep) -> None:
            goal.publish_feedback(Register.Feedback(stage=step.stage, iteration=step.iteration, cost=float(step.cost)))

        def register() -> None:
            request = goal.request
            try:
                start = conversions.transform_from_pose(request.initial_pose).numpy() if request.use_initial_pose else None
                options = {"T_initial": start, "timeout_s": request.timeout_s or None}
                observers = {"on_iteration": feed_back, "should_stop": lambda: goal.is_cancel_requested or not self._live()}
                outcome["result"] = self._register_pair(pair, time.monotonic(), **options, **observers)
            except RegistrationCancelled:
                outcome["cancelled"] = True
            except SphereRegError as error:
                self._report(error)

        job = Job(register)
        self._worker.submit(job)
        job.done.wait()
        if outcome.get("cancelled"):
            (goal.canceled if goal.is_cancel_requested else goal.abort)()
            return conversions.action_without_result("cancelled")
        if outcome.get("result") is None:
            goal.abort()
            return conversions.action_without_result(self._health.last_error or "dropped")
        goal.succeed()
        return Register.Result(result=conversions.result_to_message(outcome["result"], pair[0].header))

    def _diagnose(self) -> None:
        device = str(getattr(self._session.pipeline, "device", self._value("device")))
        stamp = self.get_clock().now().to_msg()
        name, counts = self.get_fully_qualified_name(), (self._worker.dropped_images, self._pairs.waiting_first)
        self._diagnostics.publish(diagnostic_array(name, stamp, self._session, self._health, *counts, device))

    def _report(self, error: BaseException) -> None:
        self._health.failed(str(error) or type(error).__name__)
        self.get_logger().error(f"{type(error).__name__}: {error}")


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    rclpy.init(args=args)
    node = starting = None
    try:
        node = RegistrationNode()
        executor = MultiThreadedExecutor(num_threads=EXECUTOR_THREADS)
        executor.add_node(node)
        if node.get_parameter("autostart").value:
            (starting := threading.Thread(target=_start_up, args=(node,), daemon=True)).start()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, rclpy.exceptions.ParameterException) as error:
        print(f"registration_node: {error}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a launch file's Ctrl-C comes twice; let the first one clean up
        if starting is not None:
            starting.join(START_PATIENCE_S)
        if node is not None:
            node.stop()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _start_up(node: RegistrationNode) -> None:
    if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
        node.trigger_activate()


if __name__ == "__main__":
    sys.exit(main())
